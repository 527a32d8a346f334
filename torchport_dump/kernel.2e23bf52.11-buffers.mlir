module attributes {tp.narrow_floats} {
  func.func @kernel(%arg0: !llvm.ptr {tt.divisibility = 16 : i32}, %arg1: !llvm.ptr {tt.divisibility = 16 : i32}, %arg2: !llvm.ptr {tt.divisibility = 16 : i32}, %arg3: !llvm.ptr {tt.divisibility = 16 : i32}, %arg4: !llvm.ptr {tt.divisibility = 16 : i32}) {
    %0 = "tp.buffer"() {count = 16 : i64, element = i64} : () -> !llvm.ptr
    %1 = "tp.buffer"() {count = 16 : i64, element = i64} : () -> !llvm.ptr
    %c16_i32 = arith.constant 16 : i32
    %2 = "tt.get_program_id"() {axis = 0 : i32} : () -> i32
    %3 = arith.muli %2, %c16_i32 : i32
    %4 = "tt.addptr"(%arg2, %3) {elem_bytes = 8 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %5 = "tt.splat"(%4) : (!llvm.ptr) -> tensor<16x!llvm.ptr>
    %6 = "tt.make_range"() {end = 16 : i32, start = 0 : i32} : () -> tensor<16xi32>
    %7 = "tt.addptr"(%5, %6) {elem_bytes = 8 : i64} : (tensor<16x!llvm.ptr>, tensor<16xi32>) -> tensor<16x!llvm.ptr>
    %8 = "tt.load"(%7) : (tensor<16x!llvm.ptr>) -> tensor<16xi64>
    "tp.write"(%8, %1) : (tensor<16xi64>, !llvm.ptr) -> ()
    "tp.scan"(%1, %0) ({
    ^bb0(%arg5: i64, %arg6: i64):
      %24 = arith.addi %arg5, %arg6 : i64
      "tt.scan.return"(%24) : (i64) -> ()
    }) {axis = 0 : i32, operand_types = [tensor<16xi64>], result_types = [tensor<16xi64>], reverse = true} : (!llvm.ptr, !llvm.ptr) -> ()
    %9 = "tp.read"(%0) : (!llvm.ptr) -> tensor<16xi64>
    %10 = "tt.addptr"(%arg1, %2) {elem_bytes = 8 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %11 = "tt.load"(%10) : (!llvm.ptr) -> i64
    %12 = "tt.splat"(%11) : (i64) -> tensor<16xi64>
    %13 = "tt.addptr"(%arg0, %3) {elem_bytes = 1 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %14 = "tt.splat"(%13) : (!llvm.ptr) -> tensor<16x!llvm.ptr>
    %15 = "tt.addptr"(%14, %6) {elem_bytes = 1 : i64} : (tensor<16x!llvm.ptr>, tensor<16xi32>) -> tensor<16x!llvm.ptr>
    %16 = "tt.load"(%15) : (tensor<16x!llvm.ptr>) -> tensor<16xf8E5M2>
    %17 = arith.maxsi %9, %12 : tensor<16xi64>
    %18 = "tt.addptr"(%arg3, %3) {elem_bytes = 1 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %19 = "tt.splat"(%18) : (!llvm.ptr) -> tensor<16x!llvm.ptr>
    %20 = "tt.addptr"(%19, %6) {elem_bytes = 1 : i64} : (tensor<16x!llvm.ptr>, tensor<16xi32>) -> tensor<16x!llvm.ptr>
    "tt.store"(%20, %16) : (tensor<16x!llvm.ptr>, tensor<16xf8E5M2>) -> ()
    %21 = "tt.addptr"(%arg4, %3) {elem_bytes = 8 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %22 = "tt.splat"(%21) : (!llvm.ptr) -> tensor<16x!llvm.ptr>
    %23 = "tt.addptr"(%22, %6) {elem_bytes = 8 : i64} : (tensor<16x!llvm.ptr>, tensor<16xi32>) -> tensor<16x!llvm.ptr>
    "tt.store"(%23, %17) : (tensor<16x!llvm.ptr>, tensor<16xi64>) -> ()
    return
  }
}
