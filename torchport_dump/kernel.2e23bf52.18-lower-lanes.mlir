module attributes {tp.cost = 18.759999999999998 : f64, tp.narrow_floats} {
  func.func @kernel(%arg0: !llvm.ptr {tt.divisibility = 16 : i32}, %arg1: !llvm.ptr {tt.divisibility = 16 : i32}, %arg2: !llvm.ptr {tt.divisibility = 16 : i32}, %arg3: !llvm.ptr {tt.divisibility = 16 : i32}, %arg4: !llvm.ptr {tt.divisibility = 16 : i32}) {
    %0 = "tp.buffer"() {count = 16 : i64, element = i64} : () -> !llvm.ptr
    %1 = "tp.buffer"() {count = 16 : i64, element = i64} : () -> !llvm.ptr
    %c16_i32 = arith.constant 16 : i32
    %2 = "tt.get_program_id"() {axis = 0 : i32} : () -> i32
    %3 = arith.muli %2, %c16_i32 : i32
    %4 = "tt.addptr"(%arg2, %3) {elem_bytes = 8 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %c0_i64 = arith.constant 0 : i64
    %c16_i64 = arith.constant 16 : i64
    %c8_i64 = arith.constant 8 : i64
    scf.for %arg5 = %c0_i64 to %c16_i64 step %c8_i64  : i64 {
      %23 = arith.trunci %arg5 : i64 to i32
      %24 = llvm.getelementptr %4[%23] : (!llvm.ptr, i32) -> !llvm.ptr, i64
      %cst_3 = arith.constant dense<0> : vector<8xi64>
      %c2048_i64_4 = arith.constant 2048 : i64
      %25 = llvm.getelementptr %24[%c2048_i64_4] : (!llvm.ptr, i64) -> !llvm.ptr, i8
      "llvm.intr.prefetch"(%25) <{cache = 1 : i32, hint = 3 : i32, rw = 0 : i32}> : (!llvm.ptr) -> ()
      %26 = llvm.load %24 {alignment = 8 : i64} : !llvm.ptr -> vector<8xi64>
      %27 = llvm.getelementptr %1[%arg5] : (!llvm.ptr, i64) -> !llvm.ptr, i64
      llvm.store %26, %27 {alignment = 8 : i64} : vector<8xi64>, !llvm.ptr
    }
    %c0_i64_0 = arith.constant 0 : i64
    %c1_i64 = arith.constant 1 : i64
    %c1_i64_1 = arith.constant 1 : i64
    scf.for %arg5 = %c0_i64_0 to %c1_i64 step %c1_i64_1  : i64 {
      %c16_i64_3 = arith.constant 16 : i64
      %23 = arith.muli %arg5, %c16_i64_3 : i64
      %c0_i64_4 = arith.constant 0 : i64
      %c1_i64_5 = arith.constant 1 : i64
      %24 = arith.subi %c1_i64_5, %c0_i64_4 : i64
      %c8_i64_6 = arith.constant 8 : i64
      %25 = arith.muli %24, %c8_i64_6 : i64
      %26 = arith.addi %23, %25 : i64
      %27 = llvm.getelementptr %1[%26] : (!llvm.ptr, i64) -> !llvm.ptr, i64
      %28 = llvm.load %27 {alignment = 8 : i64} : !llvm.ptr -> vector<8xi64>
      %29 = vector.shuffle %28, %28 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64>, vector<8xi64>
      %30 = vector.shuffle %29, %29 [0, 0, 1, 2, 3, 4, 5, 6] : vector<8xi64>, vector<8xi64>
      %31 = arith.addi %30, %29 : vector<8xi64>
      %cst_7 = arith.constant dense<[false, true, true, true, true, true, true, true]> : vector<8xi1>
      %32 = arith.select %cst_7, %31, %29 : vector<8xi1>, vector<8xi64>
      %33 = vector.shuffle %32, %32 [0, 0, 0, 1, 2, 3, 4, 5] : vector<8xi64>, vector<8xi64>
      %34 = arith.addi %33, %32 : vector<8xi64>
      %cst_8 = arith.constant dense<[false, false, true, true, true, true, true, true]> : vector<8xi1>
      %35 = arith.select %cst_8, %34, %32 : vector<8xi1>, vector<8xi64>
      %36 = vector.shuffle %35, %35 [0, 0, 0, 0, 0, 1, 2, 3] : vector<8xi64>, vector<8xi64>
      %37 = arith.addi %36, %35 : vector<8xi64>
      %cst_9 = arith.constant dense<[false, false, false, false, true, true, true, true]> : vector<8xi1>
      %38 = arith.select %cst_9, %37, %35 : vector<8xi1>, vector<8xi64>
      %39 = vector.shuffle %38, %38 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64>, vector<8xi64>
      %40 = llvm.getelementptr %0[%26] : (!llvm.ptr, i64) -> !llvm.ptr, i64
      llvm.store %39, %40 {alignment = 8 : i64} : vector<8xi64>, !llvm.ptr
      %41 = vector.shuffle %38, %38 [7, 7, 7, 7, 7, 7, 7, 7] : vector<8xi64>, vector<8xi64>
      %c1_i64_10 = arith.constant 1 : i64
      %c2_i64 = arith.constant 2 : i64
      %c1_i64_11 = arith.constant 1 : i64
      %42 = scf.for %arg6 = %c1_i64_10 to %c2_i64 step %c1_i64_11 iter_args(%arg7 = %41) -> (vector<8xi64>)  : i64 {
        %c1_i64_12 = arith.constant 1 : i64
        %43 = arith.subi %c1_i64_12, %arg6 : i64
        %c8_i64_13 = arith.constant 8 : i64
        %44 = arith.muli %43, %c8_i64_13 : i64
        %45 = arith.addi %23, %44 : i64
        %46 = llvm.getelementptr %1[%45] : (!llvm.ptr, i64) -> !llvm.ptr, i64
        %47 = llvm.load %46 {alignment = 8 : i64} : !llvm.ptr -> vector<8xi64>
        %48 = vector.shuffle %47, %47 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64>, vector<8xi64>
        %49 = vector.shuffle %48, %48 [0, 0, 1, 2, 3, 4, 5, 6] : vector<8xi64>, vector<8xi64>
        %50 = arith.addi %49, %48 : vector<8xi64>
        %cst_14 = arith.constant dense<[false, true, true, true, true, true, true, true]> : vector<8xi1>
        %51 = arith.select %cst_14, %50, %48 : vector<8xi1>, vector<8xi64>
        %52 = vector.shuffle %51, %51 [0, 0, 0, 1, 2, 3, 4, 5] : vector<8xi64>, vector<8xi64>
        %53 = arith.addi %52, %51 : vector<8xi64>
        %cst_15 = arith.constant dense<[false, false, true, true, true, true, true, true]> : vector<8xi1>
        %54 = arith.select %cst_15, %53, %51 : vector<8xi1>, vector<8xi64>
        %55 = vector.shuffle %54, %54 [0, 0, 0, 0, 0, 1, 2, 3] : vector<8xi64>, vector<8xi64>
        %56 = arith.addi %55, %54 : vector<8xi64>
        %cst_16 = arith.constant dense<[false, false, false, false, true, true, true, true]> : vector<8xi1>
        %57 = arith.select %cst_16, %56, %54 : vector<8xi1>, vector<8xi64>
        %58 = arith.addi %arg7, %57 : vector<8xi64>
        %59 = vector.shuffle %58, %58 [7, 6, 5, 4, 3, 2, 1, 0] : vector<8xi64>, vector<8xi64>
        %60 = llvm.getelementptr %0[%45] : (!llvm.ptr, i64) -> !llvm.ptr, i64
        llvm.store %59, %60 {alignment = 8 : i64} : vector<8xi64>, !llvm.ptr
        %61 = vector.shuffle %57, %57 [7, 7, 7, 7, 7, 7, 7, 7] : vector<8xi64>, vector<8xi64>
        %62 = arith.addi %arg7, %61 : vector<8xi64>
        scf.yield %62 : vector<8xi64>
      }
    }
    %5 = "tt.addptr"(%arg1, %2) {elem_bytes = 8 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %6 = "tt.load"(%5) : (!llvm.ptr) -> i64
    %7 = "tt.addptr"(%arg4, %3) {elem_bytes = 8 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %8 = "tt.addptr"(%arg0, %3) {elem_bytes = 1 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %9 = "tt.addptr"(%arg3, %3) {elem_bytes = 1 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %c0_i64_2 = arith.constant 0 : i64
    %10 = arith.trunci %c0_i64_2 : i64 to i32
    %11 = llvm.getelementptr %8[%10] : (!llvm.ptr, i32) -> !llvm.ptr, i8
    %cst = arith.constant dense<0> : vector<16xi8>
    %12 = llvm.load %11 {alignment = 1 : i64} : !llvm.ptr -> vector<16xi8>
    %13 = arith.bitcast %12 : vector<16xi8> to vector<16xf8E5M2>
    %14 = llvm.getelementptr %9[%10] : (!llvm.ptr, i32) -> !llvm.ptr, i8
    %15 = arith.bitcast %13 : vector<16xf8E5M2> to vector<16xi8>
    llvm.store %15, %14 {alignment = 1 : i64} : vector<16xi8>, !llvm.ptr
    %16 = llvm.getelementptr %0[%c0_i64_2] : (!llvm.ptr, i64) -> !llvm.ptr, i64
    %17 = llvm.load %16 {alignment = 8 : i64} : !llvm.ptr -> vector<16xi64>
    %18 = vector.broadcast %6 : i64 to vector<16xi64>
    %19 = arith.maxsi %17, %18 : vector<16xi64>
    %20 = llvm.getelementptr %7[%10] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %c2048_i64 = arith.constant 2048 : i64
    %21 = llvm.getelementptr %20[%c2048_i64] : (!llvm.ptr, i64) -> !llvm.ptr, i8
    "llvm.intr.prefetch"(%21) <{cache = 1 : i32, hint = 3 : i32, rw = 1 : i32}> : (!llvm.ptr) -> ()
    %c2112_i64 = arith.constant 2112 : i64
    %22 = llvm.getelementptr %20[%c2112_i64] : (!llvm.ptr, i64) -> !llvm.ptr, i8
    "llvm.intr.prefetch"(%22) <{cache = 1 : i32, hint = 3 : i32, rw = 1 : i32}> : (!llvm.ptr) -> ()
    llvm.store %19, %20 {alignment = 8 : i64} : vector<16xi64>, !llvm.ptr
    return
  }
}
