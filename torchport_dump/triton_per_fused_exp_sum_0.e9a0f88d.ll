; ModuleID = 'LLVMDialectModule'
source_filename = "LLVMDialectModule"

; Function Attrs: alwaysinline
define internal void @triton_per_fused_exp_sum_0.program(ptr %0, ptr %1, i32 %2, i32 %3, i32 %4, i32 %5, i32 %6, i32 %7, i32 %8) #0 {
  %10 = alloca i8, i64 256, align 64
  %11 = mul i32 %3, 64
  %12 = sext i32 %11 to i64
  %13 = sub i64 1, %12
  %14 = call i64 @llvm.smax.i64(i64 %13, i64 0)
  %15 = call i64 @llvm.smin.i64(i64 %14, i64 64)
  %16 = and i64 %15, -16
  br label %17

17:                                               ; preds = %72, %9
  %18 = phi i64 [ %74, %72 ], [ 0, %9 ]
  %19 = icmp slt i64 %18, %16
  br i1 %19, label %20, label %75

20:                                               ; preds = %17
  br label %21

21:                                               ; preds = %36, %20
  %22 = phi i64 [ %71, %36 ], [ 0, %20 ]
  %23 = phi <16 x float> [ %70, %36 ], [ zeroinitializer, %20 ]
  %24 = icmp slt i64 %22, 8
  br i1 %24, label %25, label %72

25:                                               ; preds = %21
  %26 = trunc i64 %22 to i32
  %27 = icmp slt i32 %26, 8
  %28 = insertelement <16 x i1> poison, i1 %27, i32 0
  %29 = shufflevector <16 x i1> %28, <16 x i1> poison, <16 x i32> zeroinitializer
  %30 = getelementptr i32, ptr %0, i32 %26
  br i1 %27, label %31, label %33

31:                                               ; preds = %25
  %32 = load float, ptr %30, align 4
  br label %34

33:                                               ; preds = %25
  br label %34

34:                                               ; preds = %31, %33
  %35 = phi float [ 0.000000e+00, %33 ], [ %32, %31 ]
  br label %36

36:                                               ; preds = %34
  %37 = fcmp ogt float %35, 8.900000e+01
  %38 = select i1 %37, float 8.900000e+01, float %35
  %39 = fcmp olt float %38, -1.040000e+02
  %40 = select i1 %39, float -1.040000e+02, float %38
  %41 = call float @llvm.fma.f32(float %40, float 0x3FF7154760000000, float 0x4168000000000000)
  %42 = fsub float %41, 0x4168000000000000
  %43 = call float @llvm.fma.f32(float %42, float 0xBFE62E4000000000, float %40)
  %44 = call float @llvm.fma.f32(float %42, float 0xBEB7F7D1C0000000, float %43)
  %45 = fsub float %43, %44
  %46 = call float @llvm.fma.f32(float %42, float 0xBEB7F7D1C0000000, float %45)
  %47 = fmul float %44, %44
  %48 = call float @llvm.fma.f32(float 0x3F56A47440000000, float %44, float 0x3F81239A20000000)
  %49 = call float @llvm.fma.f32(float %48, float %44, float 0x3FA5558B60000000)
  %50 = call float @llvm.fma.f32(float %49, float %44, float 0x3FC5554920000000)
  %51 = call float @llvm.fma.f32(float %50, float %44, float 0x3FDFFFFFC0000000)
  %52 = call float @llvm.fma.f32(float %47, float %51, float %46)
  %53 = fadd float %44, %52
  %54 = bitcast float %41 to i32
  %55 = sub i32 %54, 1262485504
  %56 = fadd float %53, 1.000000e+00
  %57 = ashr i32 %55, 1
  %58 = add i32 %57, 127
  %59 = shl i32 %58, 23
  %60 = bitcast i32 %59 to float
  %61 = fmul float %56, %60
  %62 = sub i32 %55, %57
  %63 = add i32 %62, 127
  %64 = shl i32 %63, 23
  %65 = bitcast i32 %64 to float
  %66 = fmul float %61, %65
  %67 = insertelement <16 x float> poison, float %66, i32 0
  %68 = shufflevector <16 x float> %67, <16 x float> poison, <16 x i32> zeroinitializer
  %69 = select <16 x i1> %29, <16 x float> %68, <16 x float> zeroinitializer
  %70 = fadd <16 x float> %23, %69
  %71 = add i64 %22, 1
  br label %21

72:                                               ; preds = %21
  %73 = getelementptr i32, ptr %10, i64 %18
  store <16 x float> %23, ptr %73, align 4
  %74 = add i64 %18, 16
  br label %17

75:                                               ; preds = %17
  br label %76

76:                                               ; preds = %138, %75
  %77 = phi i64 [ %140, %138 ], [ %16, %75 ]
  %78 = icmp slt i64 %77, 64
  br i1 %78, label %79, label %141

79:                                               ; preds = %76
  %80 = trunc i64 %77 to i32
  %81 = add i32 %11, %80
  %82 = insertelement <16 x i32> poison, i32 %81, i32 0
  %83 = shufflevector <16 x i32> %82, <16 x i32> poison, <16 x i32> zeroinitializer
  %84 = add <16 x i32> %83, <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7, i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>
  %85 = icmp slt <16 x i32> %84, splat (i32 1)
  br label %86

86:                                               ; preds = %102, %79
  %87 = phi i64 [ %137, %102 ], [ 0, %79 ]
  %88 = phi <16 x float> [ %136, %102 ], [ zeroinitializer, %79 ]
  %89 = icmp slt i64 %87, 8
  br i1 %89, label %90, label %138

90:                                               ; preds = %86
  %91 = trunc i64 %87 to i32
  %92 = icmp slt i32 %91, 8
  %93 = insertelement <16 x i1> poison, i1 %92, i32 0
  %94 = shufflevector <16 x i1> %93, <16 x i1> poison, <16 x i32> zeroinitializer
  %95 = and <16 x i1> %94, %85
  %96 = getelementptr i32, ptr %0, i32 %91
  br i1 %92, label %97, label %99

97:                                               ; preds = %90
  %98 = load float, ptr %96, align 4
  br label %100

99:                                               ; preds = %90
  br label %100

100:                                              ; preds = %97, %99
  %101 = phi float [ 0.000000e+00, %99 ], [ %98, %97 ]
  br label %102

102:                                              ; preds = %100
  %103 = fcmp ogt float %101, 8.900000e+01
  %104 = select i1 %103, float 8.900000e+01, float %101
  %105 = fcmp olt float %104, -1.040000e+02
  %106 = select i1 %105, float -1.040000e+02, float %104
  %107 = call float @llvm.fma.f32(float %106, float 0x3FF7154760000000, float 0x4168000000000000)
  %108 = fsub float %107, 0x4168000000000000
  %109 = call float @llvm.fma.f32(float %108, float 0xBFE62E4000000000, float %106)
  %110 = call float @llvm.fma.f32(float %108, float 0xBEB7F7D1C0000000, float %109)
  %111 = fsub float %109, %110
  %112 = call float @llvm.fma.f32(float %108, float 0xBEB7F7D1C0000000, float %111)
  %113 = fmul float %110, %110
  %114 = call float @llvm.fma.f32(float 0x3F56A47440000000, float %110, float 0x3F81239A20000000)
  %115 = call float @llvm.fma.f32(float %114, float %110, float 0x3FA5558B60000000)
  %116 = call float @llvm.fma.f32(float %115, float %110, float 0x3FC5554920000000)
  %117 = call float @llvm.fma.f32(float %116, float %110, float 0x3FDFFFFFC0000000)
  %118 = call float @llvm.fma.f32(float %113, float %117, float %112)
  %119 = fadd float %110, %118
  %120 = bitcast float %107 to i32
  %121 = sub i32 %120, 1262485504
  %122 = fadd float %119, 1.000000e+00
  %123 = ashr i32 %121, 1
  %124 = add i32 %123, 127
  %125 = shl i32 %124, 23
  %126 = bitcast i32 %125 to float
  %127 = fmul float %122, %126
  %128 = sub i32 %121, %123
  %129 = add i32 %128, 127
  %130 = shl i32 %129, 23
  %131 = bitcast i32 %130 to float
  %132 = fmul float %127, %131
  %133 = insertelement <16 x float> poison, float %132, i32 0
  %134 = shufflevector <16 x float> %133, <16 x float> poison, <16 x i32> zeroinitializer
  %135 = select <16 x i1> %95, <16 x float> %134, <16 x float> zeroinitializer
  %136 = fadd <16 x float> %88, %135
  %137 = add i64 %87, 1
  br label %86

138:                                              ; preds = %86
  %139 = getelementptr i32, ptr %10, i64 %77
  store <16 x float> %88, ptr %139, align 4
  %140 = add i64 %77, 16
  br label %76

141:                                              ; preds = %76
  %142 = add i64 %15, 15
  %143 = and i64 %142, -16
  br label %144

144:                                              ; preds = %147, %141
  %145 = phi i64 [ %151, %147 ], [ 0, %141 ]
  %146 = icmp slt i64 %145, %16
  br i1 %146, label %147, label %152

147:                                              ; preds = %144
  %148 = getelementptr i32, ptr %10, i64 %145
  %149 = load <16 x float>, ptr %148, align 4
  %150 = getelementptr i8, ptr %1, <16 x i64> zeroinitializer
  call void @llvm.masked.scatter.v16f32.v16p0(<16 x float> %149, <16 x ptr> align 4 %150, <16 x i1> splat (i1 true))
  %151 = add i64 %145, 16
  br label %144

152:                                              ; preds = %144
  br label %153

153:                                              ; preds = %156, %152
  %154 = phi i64 [ %166, %156 ], [ %16, %152 ]
  %155 = icmp slt i64 %154, %143
  br i1 %155, label %156, label %167

156:                                              ; preds = %153
  %157 = trunc i64 %154 to i32
  %158 = add i32 %11, %157
  %159 = insertelement <16 x i32> poison, i32 %158, i32 0
  %160 = shufflevector <16 x i32> %159, <16 x i32> poison, <16 x i32> zeroinitializer
  %161 = add <16 x i32> %160, <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7, i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>
  %162 = icmp slt <16 x i32> %161, splat (i32 1)
  %163 = getelementptr i32, ptr %10, i64 %154
  %164 = load <16 x float>, ptr %163, align 4
  %165 = getelementptr i8, ptr %1, <16 x i64> zeroinitializer
  call void @llvm.masked.scatter.v16f32.v16p0(<16 x float> %164, <16 x ptr> align 4 %165, <16 x i1> %162)
  %166 = add i64 %154, 16
  br label %153

167:                                              ; preds = %153
  ret void
}

define void @triton_per_fused_exp_sum_0(ptr %0, ptr %1, i64 %2, i64 %3) {
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
  call void @triton_per_fused_exp_sum_0.program(ptr %5, ptr %7, i32 %9, i32 %32, i32 %33, i32 %34, i32 %10, i32 %12, i32 %14)
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

; Function Attrs: nocallback nofree nosync nounwind willreturn memory(write)
declare void @llvm.masked.scatter.v16f32.v16p0(<16 x float>, <16 x ptr>, <16 x i1>) #2

; Function Attrs: nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none)
declare float @llvm.fma.f32(float, float, float) #1

attributes #0 = { alwaysinline }
attributes #1 = { nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none) }
attributes #2 = { nocallback nofree nosync nounwind willreturn memory(write) }

!llvm.module.flags = !{!0}

!0 = !{i32 2, !"Debug Info Version", i32 3}
