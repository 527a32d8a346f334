module attributes {tp.cost = 18.759999999999998 : f64, tp.narrow_floats} {
  func.func private @kernel.program(%arg0: !llvm.ptr, %arg1: !llvm.ptr, %arg2: !llvm.ptr, %arg3: !llvm.ptr, %arg4: !llvm.ptr, %arg5: i32, %arg6: i32, %arg7: i32, %arg8: i32, %arg9: i32, %arg10: i32) attributes {llvm.linkage = #llvm.linkage<internal>, passthrough = ["alwaysinline"]} {
    %c128_i64 = arith.constant 128 : i64
    %0 = llvm.alloca %c128_i64 x i8 {alignment = 64 : i64} : (i64) -> !llvm.ptr
    %c128_i64_0 = arith.constant 128 : i64
    %1 = llvm.alloca %c128_i64_0 x i8 {alignment = 64 : i64} : (i64) -> !llvm.ptr
    %c16_i32 = arith.constant 16 : i32
    %2 = arith.muli %arg5, %c16_i32 : i32
    %3 = llvm.getelementptr %arg2[%2] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %c0_i64 = arith.constant 0 : i64
    %c16_i64 = arith.constant 16 : i64
    %c8_i64 = arith.constant 8 : i64
    scf.for %arg11 = %c0_i64 to %c16_i64 step %c8_i64  : i64 {
      %22 = arith.trunci %arg11 : i64 to i32
      %23 = llvm.getelementptr %3[%22] : (!llvm.ptr, i32) -> !llvm.ptr, i64
      %cst_4 = arith.constant dense<0> : vector<8xi64>
      %c2048_i64_5 = arith.constant 2048 : i64
      %24 = llvm.getelementptr %23[%c2048_i64_5] : (!llvm.ptr, i64) -> !llvm.ptr, i8
      "llvm.intr.prefetch"(%24) <{cache = 1 : i32, hint = 3 : i32, rw = 0 : i32}> : (!llvm.ptr) -> ()
      %25 = llvm.load %23 {alignment = 8 : i64} : !llvm.ptr -> vector<8xi64>
      %26 = llvm.getelementptr %1[%arg11] : (!llvm.ptr, i64) -> !llvm.ptr, i64
      llvm.store %25, %26 {alignment = 8 : i64} : vector<8xi64>, !llvm.ptr
    }
    %c0_i64_1 = arith.constant 0 : i64
    %c1_i64 = arith.constant 1 : i64
    %c1_i64_2 = arith.constant 1 : i64
    scf.for %arg11 = %c0_i64_1 to %c1_i64 step %c1_i64_2  : i64 {
      %c16_i64_4 = arith.constant 16 : i64
      %22 = arith.muli %arg11, %c16_i64_4 : i64
      %c0_i64_5 = arith.constant 0 : i64
      %c1_i64_6 = arith.constant 1 : i64
      %23 = arith.subi %c1_i64_6, %c0_i64_5 : i64
      %c8_i64_7 = arith.constant 8 : i64
      %24 = arith.muli %23, %c8_i64_7 : i64
      %25 = arith.addi %22, %24 : i64
      %26 = llvm.getelementptr %1[%25] : (!llvm.ptr, i64) -> !llvm.ptr, i64
      %27 = llvm.load %26 {alignment = 8 : i64} : !llvm.ptr -> vector<8xi64>
      %28 = vector.shuffle %27, %27 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64>, vector<8xi64>
      %29 = vector.shuffle %28, %28 [0, 0, 1, 2, 3, 4, 5, 6] : vector<8xi64>, vector<8xi64>
      %30 = arith.addi %29, %28 : vector<8xi64>
      %cst_8 = arith.constant dense<[false, true, true, true, true, true, true, true]> : vector<8xi1>
      %31 = arith.select %cst_8, %30, %28 : vector<8xi1>, vector<8xi64>
      %32 = vector.shuffle %31, %31 [0, 0, 0, 1, 2, 3, 4, 5] : vector<8xi64>, vector<8xi64>
      %33 = arith.addi %32, %31 : vector<8xi64>
      %cst_9 = arith.constant dense<[false, false, true, true, true, true, true, true]> : vector<8xi1>
      %34 = arith.select %cst_9, %33, %31 : vector<8xi1>, vector<8xi64>
      %35 = vector.shuffle %34, %34 [0, 0, 0, 0, 0, 1, 2, 3] : vector<8xi64>, vector<8xi64>
      %36 = arith.addi %35, %34 : vector<8xi64>
      %cst_10 = arith.constant dense<[false, false, false, false, true, true, true, true]> : vector<8xi1>
      %37 = arith.select %cst_10, %36, %34 : vector<8xi1>, vector<8xi64>
      %38 = vector.shuffle %37, %37 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64>, vector<8xi64>
      %39 = llvm.getelementptr %0[%25] : (!llvm.ptr, i64) -> !llvm.ptr, i64
      llvm.store %38, %39 {alignment = 8 : i64} : vector<8xi64>, !llvm.ptr
      %40 = vector.shuffle %37, %37 [7, 7, 7, 7, 7, 7, 7, 7] : vector<8xi64>, vector<8xi64>
      %c1_i64_11 = arith.constant 1 : i64
      %c2_i64 = arith.constant 2 : i64
      %c1_i64_12 = arith.constant 1 : i64
      %41 = scf.for %arg12 = %c1_i64_11 to %c2_i64 step %c1_i64_12 iter_args(%arg13 = %40) -> (vector<8xi64>)  : i64 {
        %c1_i64_13 = arith.constant 1 : i64
        %42 = arith.subi %c1_i64_13, %arg12 : i64
        %c8_i64_14 = arith.constant 8 : i64
        %43 = arith.muli %42, %c8_i64_14 : i64
        %44 = arith.addi %22, %43 : i64
        %45 = llvm.getelementptr %1[%44] : (!llvm.ptr, i64) -> !llvm.ptr, i64
        %46 = llvm.load %45 {alignment = 8 : i64} : !llvm.ptr -> vector<8xi64>
        %47 = vector.shuffle %46, %46 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64>, vector<8xi64>
        %48 = vector.shuffle %47, %47 [0, 0, 1, 2, 3, 4, 5, 6] : vector<8xi64>, vector<8xi64>
        %49 = arith.addi %48, %47 : vector<8xi64>
        %cst_15 = arith.constant dense<[false, true, true, true, true, true, true, true]> : vector<8xi1>
        %50 = arith.select %cst_15, %49, %47 : vector<8xi1>, vector<8xi64>
        %51 = vector.shuffle %50, %50 [0, 0, 0, 1, 2, 3, 4, 5] : vector<8xi64>, vector<8xi64>
        %52 = arith.addi %51, %50 : vector<8xi64>
        %cst_16 = arith.constant dense<[false, false, true, true, true, true, true, true]> : vector<8xi1>
        %53 = arith.select %cst_16, %52, %50 : vector<8xi1>, vector<8xi64>
        %54 = vector.shuffle %53, %53 [0, 0, 0, 0, 0, 1, 2, 3] : vector<8xi64>, vector<8xi64>
        %55 = arith.addi %54, %53 : vector<8xi64>
        %cst_17 = arith.constant dense<[false, false, false, false, true, true, true, true]> : vector<8xi1>
        %56 = arith.select %cst_17, %55, %53 : vector<8xi1>, vector<8xi64>
        %57 = arith.addi %arg13, %56 : vector<8xi64>
        %58 = vector.shuffle %57, %57 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64>, vector<8xi64>
        %59 = llvm.getelementptr %0[%44] : (!llvm.ptr, i64) -> !llvm.ptr, i64
        llvm.store %58, %59 {alignment = 8 : i64} : vector<8xi64>, !llvm.ptr
        %60 = vector.shuffle %56, %56 [7, 7, 7, 7, 7, 7, 7, 7] : vector<8xi64>, vector<8xi64>
        %61 = arith.addi %arg13, %60 : vector<8xi64>
        scf.yield %61 : vector<8xi64>
      }
    }
    %4 = llvm.getelementptr %arg1[%arg5] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %5 = llvm.load %4 {alignment = 8 : i64} : !llvm.ptr -> i64
    %6 = llvm.getelementptr %arg4[%2] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %7 = llvm.getelementptr %arg0[%2] : (!llvm.ptr, i32) -> !llvm.ptr, i8
    %8 = llvm.getelementptr %arg3[%2] : (!llvm.ptr, i32) -> !llvm.ptr, i8
    %c0_i64_3 = arith.constant 0 : i64
    %9 = arith.trunci %c0_i64_3 : i64 to i32
    %10 = llvm.getelementptr %7[%9] : (!llvm.ptr, i32) -> !llvm.ptr, i8
    %cst = arith.constant dense<0> : vector<16xi8>
    %11 = llvm.load %10 {alignment = 1 : i64} : !llvm.ptr -> vector<16xi8>
    %12 = arith.bitcast %11 : vector<16xi8> to vector<16xf8E5M2>
    %13 = llvm.getelementptr %8[%9] : (!llvm.ptr, i32) -> !llvm.ptr, i8
    %14 = arith.bitcast %12 : vector<16xf8E5M2> to vector<16xi8>
    llvm.store %14, %13 {alignment = 1 : i64} : vector<16xi8>, !llvm.ptr
    %15 = llvm.getelementptr %0[%c0_i64_3] : (!llvm.ptr, i64) -> !llvm.ptr, i64
    %16 = llvm.load %15 {alignment = 8 : i64} : !llvm.ptr -> vector<16xi64>
    %17 = vector.broadcast %5 : i64 to vector<16xi64>
    %18 = arith.maxsi %16, %17 : vector<16xi64>
    %19 = llvm.getelementptr %6[%9] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %c2048_i64 = arith.constant 2048 : i64
    %20 = llvm.getelementptr %19[%c2048_i64] : (!llvm.ptr, i64) -> !llvm.ptr, i8
    "llvm.intr.prefetch"(%20) <{cache = 1 : i32, hint = 3 : i32, rw = 1 : i32}> : (!llvm.ptr) -> ()
    %c2112_i64 = arith.constant 2112 : i64
    %21 = llvm.getelementptr %19[%c2112_i64] : (!llvm.ptr, i64) -> !llvm.ptr, i8
    "llvm.intr.prefetch"(%21) <{cache = 1 : i32, hint = 3 : i32, rw = 1 : i32}> : (!llvm.ptr) -> ()
    llvm.store %18, %19 {alignment = 8 : i64} : vector<16xi64>, !llvm.ptr
    return
  }
  func.func @kernel(%arg0: !llvm.ptr, %arg1: !llvm.ptr, %arg2: i64, %arg3: i64) {
    %0 = llvm.getelementptr %arg0[0] : (!llvm.ptr) -> !llvm.ptr, i64
    %1 = llvm.load %0 {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
    %2 = llvm.getelementptr %arg0[1] : (!llvm.ptr) -> !llvm.ptr, i64
    %3 = llvm.load %2 {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
    %4 = llvm.getelementptr %arg0[2] : (!llvm.ptr) -> !llvm.ptr, i64
    %5 = llvm.load %4 {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
    %6 = llvm.getelementptr %arg0[3] : (!llvm.ptr) -> !llvm.ptr, i64
    %7 = llvm.load %6 {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
    %8 = llvm.getelementptr %arg0[4] : (!llvm.ptr) -> !llvm.ptr, i64
    %9 = llvm.load %8 {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
    %10 = llvm.getelementptr %arg1[0] : (!llvm.ptr) -> !llvm.ptr, i32
    %11 = llvm.load %10 {alignment = 4 : i64} : !llvm.ptr -> i32
    %12 = llvm.getelementptr %arg1[1] : (!llvm.ptr) -> !llvm.ptr, i32
    %13 = llvm.load %12 {alignment = 4 : i64} : !llvm.ptr -> i32
    %14 = llvm.getelementptr %arg1[2] : (!llvm.ptr) -> !llvm.ptr, i32
    %15 = llvm.load %14 {alignment = 4 : i64} : !llvm.ptr -> i32
    %16 = arith.extui %11 : i32 to i64
    %17 = arith.extui %13 : i32 to i64
    %18 = arith.remui %arg2, %16 : i64
    %19 = arith.divui %arg2, %16 : i64
    %20 = arith.remui %19, %17 : i64
    %21 = arith.divui %19, %17 : i64
    %22 = arith.trunci %18 : i64 to i32
    %23 = arith.trunci %20 : i64 to i32
    %24 = arith.trunci %21 : i64 to i32
    %c1_i64 = arith.constant 1 : i64
    %c1_i32 = arith.constant 1 : i32
    %c0_i32 = arith.constant 0 : i32
    %25:3 = scf.for %arg4 = %arg2 to %arg3 step %c1_i64 iter_args(%arg5 = %22, %arg6 = %23, %arg7 = %24) -> (i32, i32, i32)  : i64 {
      func.call @kernel.program(%1, %3, %5, %7, %9, %arg5, %arg6, %arg7, %11, %13, %15) : (!llvm.ptr, !llvm.ptr, !llvm.ptr, !llvm.ptr, !llvm.ptr, i32, i32, i32, i32, i32, i32) -> ()
      %26 = arith.addi %arg5, %c1_i32 : i32
      %27 = arith.cmpi eq, %26, %11 : i32
      %28 = arith.select %27, %c1_i32, %c0_i32 : i32
      %29 = arith.addi %arg6, %28 : i32
      %30 = arith.cmpi eq, %29, %13 : i32
      %31 = arith.select %30, %c1_i32, %c0_i32 : i32
      %32 = arith.addi %arg7, %31 : i32
      %33 = arith.select %27, %c0_i32, %26 : i32
      %34 = arith.select %30, %c0_i32, %29 : i32
      scf.yield %33, %34, %32 : i32, i32, i32
    }
    return
  }
}
