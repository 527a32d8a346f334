; ModuleID = 'LLVMDialectModule'
source_filename = "LLVMDialectModule"

; Function Attrs: alwaysinline
define internal void @kernel.program(ptr %0, ptr %1, ptr %2, ptr %3, ptr %4, i32 %5, i32 %6, i32 %7, i32 %8, i32 %9, i32 %10) #0 {
  %12 = alloca i8, i64 128, align 64
  %13 = alloca i8, i64 128, align 64
  %14 = mul i32 %5, 16
  %15 = getelementptr i64, ptr %2, i32 %14
  br label %16

16:                                               ; preds = %19, %11
  %17 = phi i64 [ %25, %19 ], [ 0, %11 ]
  %18 = icmp slt i64 %17, 16
  br i1 %18, label %19, label %26

19:                                               ; preds = %16
  %20 = trunc i64 %17 to i32
  %21 = getelementptr i64, ptr %15, i32 %20
  %22 = getelementptr i8, ptr %21, i32 2048
  call void @llvm.prefetch.p0(ptr %22, i32 0, i32 3, i32 1)
  %23 = load <8 x i64>, ptr %21, align 8
  %24 = getelementptr i64, ptr %13, i64 %17
  store <8 x i64> %23, ptr %24, align 8
  %25 = add i64 %17, 8
  br label %16

26:                                               ; preds = %16
  %27 = getelementptr i64, ptr %13, i32 8
  %28 = load <8 x i64>, ptr %27, align 8
  %29 = shufflevector <8 x i64> %28, <8 x i64> %28, <8 x i32> <i32 7, i32 6, i32 5, i32 4, i32 3, i32 2, i32 1, i32 0>
  %30 = shufflevector <8 x i64> %29, <8 x i64> %29, <8 x i32> <i32 0, i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6>
  %31 = add <8 x i64> %30, %29
  %32 = select <8 x i1> <i1 false, i1 true, i1 true, i1 true, i1 true, i1 true, i1 true, i1 true>, <8 x i64> %31, <8 x i64> %29
  %33 = shufflevector <8 x i64> %32, <8 x i64> %32, <8 x i32> <i32 0, i32 0, i32 0, i32 1, i32 2, i32 3, i32 4, i32 5>
  %34 = add <8 x i64> %33, %32
  %35 = select <8 x i1> <i1 false, i1 false, i1 true, i1 true, i1 true, i1 true, i1 true, i1 true>, <8 x i64> %34, <8 x i64> %32
  %36 = shufflevector <8 x i64> %35, <8 x i64> %35, <8 x i32> <i32 0, i32 0, i32 0, i32 0, i32 0, i32 1, i32 2, i32 3>
  %37 = add <8 x i64> %36, %35
  %38 = select <8 x i1> <i1 false, i1 false, i1 false, i1 false, i1 true, i1 true, i1 true, i1 true>, <8 x i64> %37, <8 x i64> %35
  %39 = shufflevector <8 x i64> %38, <8 x i64> %38, <8 x i32> <i32 7, i32 6, i32 5, i32 4, i32 3, i32 2, i32 1, i32 0>
  %40 = getelementptr i64, ptr %12, i32 8
  store <8 x i64> %39, ptr %40, align 8
  %41 = shufflevector <8 x i64> %38, <8 x i64> %38, <8 x i32> <i32 7, i32 7, i32 7, i32 7, i32 7, i32 7, i32 7, i32 7>
  %42 = load <8 x i64>, ptr %13, align 8
  %43 = shufflevector <8 x i64> %42, <8 x i64> %42, <8 x i32> <i32 7, i32 6, i32 5, i32 4, i32 3, i32 2, i32 1, i32 0>
  %44 = shufflevector <8 x i64> %43, <8 x i64> %43, <8 x i32> <i32 0, i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6>
  %45 = add <8 x i64> %44, %43
  %46 = select <8 x i1> <i1 false, i1 true, i1 true, i1 true, i1 true, i1 true, i1 true, i1 true>, <8 x i64> %45, <8 x i64> %43
  %47 = shufflevector <8 x i64> %46, <8 x i64> %46, <8 x i32> <i32 0, i32 0, i32 0, i32 1, i32 2, i32 3, i32 4, i32 5>
  %48 = add <8 x i64> %47, %46
  %49 = select <8 x i1> <i1 false, i1 false, i1 true, i1 true, i1 true, i1 true, i1 true, i1 true>, <8 x i64> %48, <8 x i64> %46
  %50 = shufflevector <8 x i64> %49, <8 x i64> %49, <8 x i32> <i32 0, i32 0, i32 0, i32 0, i32 0, i32 1, i32 2, i32 3>
  %51 = add <8 x i64> %50, %49
  %52 = select <8 x i1> <i1 false, i1 false, i1 false, i1 false, i1 true, i1 true, i1 true, i1 true>, <8 x i64> %51, <8 x i64> %49
  %53 = add <8 x i64> %41, %52
  %54 = shufflevector <8 x i64> %53, <8 x i64> %53, <8 x i32> <i32 7, i32 6, i32 5, i32 4, i32 3, i32 2, i32 1, i32 0>
  store <8 x i64> %54, ptr %12, align 8
  %55 = getelementptr i64, ptr %1, i32 %5
  %56 = load i64, ptr %55, align 8
  %57 = getelementptr i64, ptr %4, i32 %14
  %58 = getelementptr i8, ptr %0, i32 %14
  %59 = getelementptr i8, ptr %3, i32 %14
  %60 = load <16 x i8>, ptr %58, align 1
  store <16 x i8> %60, ptr %59, align 1
  %61 = load <16 x i64>, ptr %12, align 8
  %62 = insertelement <16 x i64> poison, i64 %56, i32 0
  %63 = shufflevector <16 x i64> %62, <16 x i64> poison, <16 x i32> zeroinitializer
  %64 = call <16 x i64> @llvm.smax.v16i64(<16 x i64> %61, <16 x i64> %63)
  %65 = getelementptr i8, ptr %57, i32 2048
  call void @llvm.prefetch.p0(ptr %65, i32 1, i32 3, i32 1)
  %66 = getelementptr i8, ptr %57, i32 2112
  call void @llvm.prefetch.p0(ptr %66, i32 1, i32 3, i32 1)
  store <16 x i64> %64, ptr %57, align 8
  ret void
}

define void @kernel(ptr %0, ptr %1, i64 %2, i64 %3) {
  %5 = load ptr, ptr %0, align 8
  %6 = getelementptr i64, ptr %0, i32 1
  %7 = load ptr, ptr %6, align 8
  %8 = getelementptr i64, ptr %0, i32 2
  %9 = load ptr, ptr %8, align 8
  %10 = getelementptr i64, ptr %0, i32 3
  %11 = load ptr, ptr %10, align 8
  %12 = getelementptr i64, ptr %0, i32 4
  %13 = load ptr, ptr %12, align 8
  %14 = load i32, ptr %1, align 4
  %15 = getelementptr i32, ptr %1, i32 1
  %16 = load i32, ptr %15, align 4
  %17 = getelementptr i32, ptr %1, i32 2
  %18 = load i32, ptr %17, align 4
  %19 = zext i32 %14 to i64
  %20 = zext i32 %16 to i64
  %21 = icmp eq i64 %19, 0
  %22 = select i1 %21, i64 1, i64 %19
  %23 = udiv i64 %2, %22
  %24 = mul i64 %23, %22
  %25 = sub i64 %2, %24
  %26 = icmp eq i64 %20, 0
  %27 = select i1 %26, i64 1, i64 %20
  %28 = udiv i64 %23, %27
  %29 = mul i64 %28, %27
  %30 = sub i64 %23, %29
  %31 = trunc i64 %25 to i32
  %32 = trunc i64 %30 to i32
  %33 = trunc i64 %28 to i32
  br label %34

34:                                               ; preds = %40, %4
  %35 = phi i64 [ %50, %40 ], [ %2, %4 ]
  %36 = phi i32 [ %48, %40 ], [ %31, %4 ]
  %37 = phi i32 [ %49, %40 ], [ %32, %4 ]
  %38 = phi i32 [ %47, %40 ], [ %33, %4 ]
  %39 = icmp slt i64 %35, %3
  br i1 %39, label %40, label %51

40:                                               ; preds = %34
  call void @kernel.program(ptr %5, ptr %7, ptr %9, ptr %11, ptr %13, i32 %36, i32 %37, i32 %38, i32 %14, i32 %16, i32 %18)
  %41 = add i32 %36, 1
  %42 = icmp eq i32 %41, %14
  %43 = zext i1 %42 to i32
  %44 = add i32 %37, %43
  %45 = icmp eq i32 %44, %16
  %46 = zext i1 %45 to i32
  %47 = add i32 %38, %46
  %48 = select i1 %42, i32 0, i32 %41
  %49 = select i1 %45, i32 0, i32 %44
  %50 = add i64 %35, 1
  br label %34

51:                                               ; preds = %34
  ret void
}

; Function Attrs: nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none)
declare <16 x i64> @llvm.smax.v16i64(<16 x i64>, <16 x i64>) #1

; Function Attrs: nocallback nofree nosync nounwind willreturn memory(argmem: readwrite, inaccessiblemem: readwrite)
declare void @llvm.prefetch.p0(ptr readonly captures(none), i32 immarg, i32 immarg, i32 immarg) #2

attributes #0 = { alwaysinline }
attributes #1 = { nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none) }
attributes #2 = { nocallback nofree nosync nounwind willreturn memory(argmem: readwrite, inaccessiblemem: readwrite) }

!llvm.module.flags = !{!0}

!0 = !{i32 2, !"Debug Info Version", i32 3}
