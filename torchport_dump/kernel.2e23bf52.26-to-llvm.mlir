module attributes {tp.cost = 18.759999999999998 : f64, tp.narrow_floats} {
  llvm.func internal @kernel.program(%arg0: !llvm.ptr, %arg1: !llvm.ptr, %arg2: !llvm.ptr, %arg3: !llvm.ptr, %arg4: !llvm.ptr, %arg5: i32, %arg6: i32, %arg7: i32, %arg8: i32, %arg9: i32, %arg10: i32) attributes {passthrough = ["alwaysinline"], sym_visibility = "private"} {
    %0 = llvm.mlir.constant(dense<[false, false, false, false, true, true, true, true]> : vector<8xi1>) : vector<8xi1>
    %1 = llvm.mlir.constant(dense<[false, false, true, true, true, true, true, true]> : vector<8xi1>) : vector<8xi1>
    %2 = llvm.mlir.constant(dense<[false, true, true, true, true, true, true, true]> : vector<8xi1>) : vector<8xi1>
    %3 = llvm.mlir.constant(8 : i64) : i64
    %4 = llvm.mlir.constant(16 : i64) : i64
    %5 = llvm.mlir.constant(0 : i64) : i64
    %6 = llvm.mlir.constant(16 : i32) : i32
    %7 = llvm.mlir.constant(128 : i64) : i64
    %8 = llvm.alloca %7 x i8 {alignment = 64 : i64} : (i64) -> !llvm.ptr
    %9 = llvm.alloca %7 x i8 {alignment = 64 : i64} : (i64) -> !llvm.ptr
    %10 = llvm.mul %arg5, %6 : i32
    %11 = llvm.getelementptr %arg2[%10] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    llvm.br ^bb1(%5 : i64)
  ^bb1(%12: i64):  // 2 preds: ^bb0, ^bb2
    %13 = llvm.icmp "slt" %12, %4 : i64
    llvm.cond_br %13, ^bb2, ^bb3
  ^bb2:  // pred: ^bb1
    %14 = llvm.trunc %12 : i64 to i32
    %15 = llvm.getelementptr %11[%14] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %16 = llvm.getelementptr %15[2048] : (!llvm.ptr) -> !llvm.ptr, i8
    "llvm.intr.prefetch"(%16) <{cache = 1 : i32, hint = 3 : i32, rw = 0 : i32}> : (!llvm.ptr) -> ()
    %17 = llvm.load %15 {alignment = 8 : i64} : !llvm.ptr -> vector<8xi64>
    %18 = llvm.getelementptr %9[%12] : (!llvm.ptr, i64) -> !llvm.ptr, i64
    llvm.store %17, %18 {alignment = 8 : i64} : vector<8xi64>, !llvm.ptr
    %19 = llvm.add %12, %3 : i64
    llvm.br ^bb1(%19 : i64)
  ^bb3:  // pred: ^bb1
    %20 = llvm.getelementptr %9[8] : (!llvm.ptr) -> !llvm.ptr, i64
    %21 = llvm.load %20 {alignment = 8 : i64} : !llvm.ptr -> vector<8xi64>
    %22 = llvm.shufflevector %21, %21 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64> 
    %23 = llvm.shufflevector %22, %22 [0, 0, 1, 2, 3, 4, 5, 6] : vector<8xi64> 
    %24 = llvm.add %23, %22 : vector<8xi64>
    %25 = llvm.select %2, %24, %22 : vector<8xi1>, vector<8xi64>
    %26 = llvm.shufflevector %25, %25 [0, 0, 0, 1, 2, 3, 4, 5] : vector<8xi64> 
    %27 = llvm.add %26, %25 : vector<8xi64>
    %28 = llvm.select %1, %27, %25 : vector<8xi1>, vector<8xi64>
    %29 = llvm.shufflevector %28, %28 [0, 0, 0, 0, 0, 1, 2, 3] : vector<8xi64> 
    %30 = llvm.add %29, %28 : vector<8xi64>
    %31 = llvm.select %0, %30, %28 : vector<8xi1>, vector<8xi64>
    %32 = llvm.shufflevector %31, %31 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64> 
    %33 = llvm.getelementptr %8[8] : (!llvm.ptr) -> !llvm.ptr, i64
    llvm.store %32, %33 {alignment = 8 : i64} : vector<8xi64>, !llvm.ptr
    %34 = llvm.shufflevector %31, %31 [7, 7, 7, 7, 7, 7, 7, 7] : vector<8xi64> 
    %35 = llvm.load %9 {alignment = 8 : i64} : !llvm.ptr -> vector<8xi64>
    %36 = llvm.shufflevector %35, %35 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64> 
    %37 = llvm.shufflevector %36, %36 [0, 0, 1, 2, 3, 4, 5, 6] : vector<8xi64> 
    %38 = llvm.add %37, %36 : vector<8xi64>
    %39 = llvm.select %2, %38, %36 : vector<8xi1>, vector<8xi64>
    %40 = llvm.shufflevector %39, %39 [0, 0, 0, 1, 2, 3, 4, 5] : vector<8xi64> 
    %41 = llvm.add %40, %39 : vector<8xi64>
    %42 = llvm.select %1, %41, %39 : vector<8xi1>, vector<8xi64>
    %43 = llvm.shufflevector %42, %42 [0, 0, 0, 0, 0, 1, 2, 3] : vector<8xi64> 
    %44 = llvm.add %43, %42 : vector<8xi64>
    %45 = llvm.select %0, %44, %42 : vector<8xi1>, vector<8xi64>
    %46 = llvm.add %34, %45 : vector<8xi64>
    %47 = llvm.shufflevector %46, %46 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64> 
    llvm.store %47, %8 {alignment = 8 : i64} : vector<8xi64>, !llvm.ptr
    %48 = llvm.getelementptr %arg1[%arg5] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %49 = llvm.load %48 {alignment = 8 : i64} : !llvm.ptr -> i64
    %50 = llvm.getelementptr %arg4[%10] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %51 = llvm.getelementptr %arg0[%10] : (!llvm.ptr, i32) -> !llvm.ptr, i8
    %52 = llvm.getelementptr %arg3[%10] : (!llvm.ptr, i32) -> !llvm.ptr, i8
    %53 = llvm.load %51 {alignment = 1 : i64} : !llvm.ptr -> vector<16xi8>
    llvm.store %53, %52 {alignment = 1 : i64} : vector<16xi8>, !llvm.ptr
    %54 = llvm.load %8 {alignment = 8 : i64} : !llvm.ptr -> vector<16xi64>
    %55 = llvm.mlir.poison : vector<16xi64>
    %56 = llvm.mlir.constant(0 : i32) : i32
    %57 = llvm.insertelement %49, %55[%56 : i32] : vector<16xi64>
    %58 = llvm.shufflevector %57, %55 [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] : vector<16xi64> 
    %59 = llvm.intr.smax(%54, %58) : (vector<16xi64>, vector<16xi64>) -> vector<16xi64>
    %60 = llvm.getelementptr %50[2048] : (!llvm.ptr) -> !llvm.ptr, i8
    "llvm.intr.prefetch"(%60) <{cache = 1 : i32, hint = 3 : i32, rw = 1 : i32}> : (!llvm.ptr) -> ()
    %61 = llvm.getelementptr %50[2112] : (!llvm.ptr) -> !llvm.ptr, i8
    "llvm.intr.prefetch"(%61) <{cache = 1 : i32, hint = 3 : i32, rw = 1 : i32}> : (!llvm.ptr) -> ()
    llvm.store %59, %50 {alignment = 8 : i64} : vector<16xi64>, !llvm.ptr
    llvm.return
  }
  llvm.func @kernel(%arg0: !llvm.ptr, %arg1: !llvm.ptr, %arg2: i64, %arg3: i64) {
    %0 = llvm.mlir.constant(0 : i32) : i32
    %1 = llvm.mlir.constant(1 : i32) : i32
    %2 = llvm.mlir.constant(1 : i64) : i64
    %3 = llvm.mlir.constant(0 : i64) : i64
    %4 = llvm.load %arg0 {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
    %5 = llvm.getelementptr %arg0[1] : (!llvm.ptr) -> !llvm.ptr, i64
    %6 = llvm.load %5 {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
    %7 = llvm.getelementptr %arg0[2] : (!llvm.ptr) -> !llvm.ptr, i64
    %8 = llvm.load %7 {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
    %9 = llvm.getelementptr %arg0[3] : (!llvm.ptr) -> !llvm.ptr, i64
    %10 = llvm.load %9 {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
    %11 = llvm.getelementptr %arg0[4] : (!llvm.ptr) -> !llvm.ptr, i64
    %12 = llvm.load %11 {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
    %13 = llvm.load %arg1 {alignment = 4 : i64} : !llvm.ptr -> i32
    %14 = llvm.getelementptr %arg1[1] : (!llvm.ptr) -> !llvm.ptr, i32
    %15 = llvm.load %14 {alignment = 4 : i64} : !llvm.ptr -> i32
    %16 = llvm.getelementptr %arg1[2] : (!llvm.ptr) -> !llvm.ptr, i32
    %17 = llvm.load %16 {alignment = 4 : i64} : !llvm.ptr -> i32
    %18 = llvm.zext %13 : i32 to i64
    %19 = llvm.zext %15 : i32 to i64
    %20 = llvm.icmp "eq" %18, %3 : i64
    %21 = llvm.select %20, %2, %18 : i1, i64
    %22 = llvm.udiv %arg2, %21 : i64
    %23 = llvm.mul %22, %21 : i64
    %24 = llvm.sub %arg2, %23 : i64
    %25 = llvm.icmp "eq" %19, %3 : i64
    %26 = llvm.select %25, %2, %19 : i1, i64
    %27 = llvm.udiv %22, %26 : i64
    %28 = llvm.mul %27, %26 : i64
    %29 = llvm.sub %22, %28 : i64
    %30 = llvm.trunc %24 : i64 to i32
    %31 = llvm.trunc %29 : i64 to i32
    %32 = llvm.trunc %27 : i64 to i32
    llvm.br ^bb1(%arg2, %30, %31, %32 : i64, i32, i32, i32)
  ^bb1(%33: i64, %34: i32, %35: i32, %36: i32):  // 2 preds: ^bb0, ^bb2
    %37 = llvm.icmp "slt" %33, %arg3 : i64
    llvm.cond_br %37, ^bb2, ^bb3
  ^bb2:  // pred: ^bb1
    llvm.call @kernel.program(%4, %6, %8, %10, %12, %34, %35, %36, %13, %15, %17) : (!llvm.ptr, !llvm.ptr, !llvm.ptr, !llvm.ptr, !llvm.ptr, i32, i32, i32, i32, i32, i32) -> ()
    %38 = llvm.add %34, %1 : i32
    %39 = llvm.icmp "eq" %38, %13 : i32
    %40 = llvm.zext %39 : i1 to i32
    %41 = llvm.add %35, %40 : i32
    %42 = llvm.icmp "eq" %41, %15 : i32
    %43 = llvm.zext %42 : i1 to i32
    %44 = llvm.add %36, %43 : i32
    %45 = llvm.select %39, %0, %38 : i1, i32
    %46 = llvm.select %42, %0, %41 : i1, i32
    %47 = llvm.add %33, %2 : i64
    llvm.br ^bb1(%47, %45, %46, %44 : i64, i32, i32, i32)
  ^bb3:  // pred: ^bb1
    llvm.return
  }
}
