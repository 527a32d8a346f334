; ModuleID = 'LLVMDialectModule'
source_filename = "LLVMDialectModule"

; Function Attrs: alwaysinline
define internal void @triton_poi_fused_add_div_mul_relu_sub_0.program(ptr %0, ptr %1, i32 %2, i32 %3, i32 %4, i32 %5, i32 %6, i32 %7, i32 %8) #0 {
  %10 = mul i32 %3, 1024
  %11 = sext i32 %10 to i64
  %12 = sub i64 2112, %11
  %13 = call i64 @llvm.smax.i64(i64 %12, i64 0)
  %14 = call i64 @llvm.smin.i64(i64 %13, i64 1024)
  %15 = and i64 %14, -16
  %16 = add i64 %14, 15
  %17 = and i64 %16, -16
  br label %18

18:                                               ; preds = %21, %9
  %19 = phi i64 [ %35, %21 ], [ 0, %9 ]
  %20 = icmp slt i64 %19, %15
  br i1 %20, label %21, label %36

21:                                               ; preds = %18
  %22 = trunc i64 %19 to i32
  %23 = add i32 %10, %22
  %24 = getelementptr i32, ptr %0, i32 %23
  %25 = getelementptr i8, ptr %24, i32 2048
  call void @llvm.prefetch.p0(ptr %25, i32 0, i32 3, i32 1)
  %26 = load <16 x float>, ptr %24, align 4
  %27 = fcmp ogt <16 x float> zeroinitializer, %26
  %28 = select <16 x i1> %27, <16 x float> zeroinitializer, <16 x float> %26
  %29 = fmul <16 x float> %28, splat (float 2.000000e+00)
  %30 = fadd <16 x float> %29, splat (float 1.000000e+00)
  %31 = fdiv <16 x float> %30, splat (float 3.000000e+00)
  %32 = fsub <16 x float> %31, %26
  %33 = getelementptr i32, ptr %1, i32 %23
  %34 = getelementptr i8, ptr %33, i32 2048
  call void @llvm.prefetch.p0(ptr %34, i32 1, i32 3, i32 1)
  store <16 x float> %32, ptr %33, align 4
  %35 = add i64 %19, 16
  br label %18

36:                                               ; preds = %18
  br label %37

37:                                               ; preds = %59, %36
  %38 = phi i64 [ %60, %59 ], [ %15, %36 ]
  %39 = icmp slt i64 %38, %17
  br i1 %39, label %40, label %61

40:                                               ; preds = %37
  %41 = trunc i64 %38 to i32
  %42 = add i32 %10, %41
  %43 = icmp slt i32 %42, 2112
  %44 = getelementptr i32, ptr %0, i32 %42
  br i1 %43, label %45, label %47

45:                                               ; preds = %40
  %46 = load <16 x float>, ptr %44, align 4
  br label %48

47:                                               ; preds = %40
  br label %48

48:                                               ; preds = %45, %47
  %49 = phi <16 x float> [ zeroinitializer, %47 ], [ %46, %45 ]
  br label %50

50:                                               ; preds = %48
  %51 = fcmp ogt <16 x float> zeroinitializer, %49
  %52 = select <16 x i1> %51, <16 x float> zeroinitializer, <16 x float> %49
  %53 = fmul <16 x float> %52, splat (float 2.000000e+00)
  %54 = fadd <16 x float> %53, splat (float 1.000000e+00)
  %55 = fdiv <16 x float> %54, splat (float 3.000000e+00)
  %56 = fsub <16 x float> %55, %49
  %57 = getelementptr i32, ptr %1, i32 %42
  br i1 %43, label %58, label %59

58:                                               ; preds = %50
  store <16 x float> %56, ptr %57, align 4
  br label %59

59:                                               ; preds = %58, %50
  %60 = add i64 %38, 16
  br label %37

61:                                               ; preds = %37
  ret void
}

define void @triton_poi_fused_add_div_mul_relu_sub_0(ptr %0, ptr %1, i64 %2, i64 %3) {
  %5 = load ptr, ptr %0, align 8
  %6 = getelementptr i64, ptr %0, i32 1
  %7 = load ptr, ptr %6, align 8
  %8 = getelementptr i64, ptr %0, i32 2
  %9 = load i32, ptr %8, align 4
  %10 = load i32, ptr %1, align 4
  %11 = getelementptr i32, ptr %1, i32 1
  %12 = load i32, ptr %11, align 4
  %13 = getelementptr i32, ptr %1, i32 2
  %14 = load i32, ptr %13, align 4
  %15 = zext i32 %10 to i64
  %16 = zext i32 %12 to i64
  %17 = icmp eq i64 %15, 0
  %18 = select i1 %17, i64 1, i64 %15
  %19 = udiv i64 %2, %18
  %20 = mul i64 %19, %18
  %21 = sub i64 %2, %20
  %22 = icmp eq i64 %16, 0
  %23 = select i1 %22, i64 1, i64 %16
  %24 = udiv i64 %19, %23
  %25 = mul i64 %24, %23
  %26 = sub i64 %19, %25
  %27 = trunc i64 %21 to i32
  %28 = trunc i64 %26 to i32
  %29 = trunc i64 %24 to i32
  br label %30

30:                                               ; preds = %36, %4
  %31 = phi i64 [ %46, %36 ], [ %2, %4 ]
  %32 = phi i32 [ %44, %36 ], [ %27, %4 ]
  %33 = phi i32 [ %45, %36 ], [ %28, %4 ]
  %34 = phi i32 [ %43, %36 ], [ %29, %4 ]
  %35 = icmp slt i64 %31, %3
  br i1 %35, label %36, label %47

36:                                               ; preds = %30
  call void @triton_poi_fused_add_div_mul_relu_sub_0.program(ptr %5, ptr %7, i32 %9, i32 %32, i32 %33, i32 %34, i32 %10, i32 %12, i32 %14)
  %37 = add i32 %32, 1
  %38 = icmp eq i32 %37, %10
  %39 = zext i1 %38 to i32
  %40 = add i32 %33, %39
  %41 = icmp eq i32 %40, %12
  %42 = zext i1 %41 to i32
  %43 = add i32 %34, %42
  %44 = select i1 %38, i32 0, i32 %37
  %45 = select i1 %41, i32 0, i32 %40
  %46 = add i64 %31, 1
  br label %30

47:                                               ; preds = %30
  ret void
}

; Function Attrs: nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none)
declare i64 @llvm.smax.i64(i64, i64) #1

; Function Attrs: nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none)
declare i64 @llvm.smin.i64(i64, i64) #1

; Function Attrs: nocallback nofree nosync nounwind willreturn memory(argmem: readwrite, inaccessiblemem: readwrite)
declare void @llvm.prefetch.p0(ptr readonly captures(none), i32 immarg, i32 immarg, i32 immarg) #2

attributes #0 = { alwaysinline }
attributes #1 = { nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none) }
attributes #2 = { nocallback nofree nosync nounwind willreturn memory(argmem: readwrite, inaccessiblemem: readwrite) }

!llvm.module.flags = !{!0}

!0 = !{i32 2, !"Debug Info Version", i32 3}
