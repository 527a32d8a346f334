module attributes {tp.narrow_floats} {
  func.func @kernel(%arg0: !llvm.ptr {tt.divisibility = 16 : i32}, %arg1: !llvm.ptr {tt.divisibility = 16 : i32}, %arg2: !llvm.ptr {tt.divisibility = 16 : i32}, %arg3: !llvm.ptr {tt.divisibility = 16 : i32}, %arg4: !llvm.ptr {tt.divisibility = 16 : i32}) {
    %c16_i32 = arith.constant 16 : i32
    %0 = "tt.get_program_id"() {axis = 0 : i32} : () -> i32
    %1 = arith.muli %0, %c16_i32 : i32
    %2 = "tt.addptr"(%arg2, %1) {elem_bytes = 8 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %3 = "tt.make_range"() {end = 16 : i32, start = 0 : i32} : () -> tensor<16xi32>
    %4 = "tt.splat"(%2) : (!llvm.ptr) -> tensor<16x!llvm.ptr>
    %5 = "tt.addptr"(%4, %3) {elem_bytes = 8 : i64} : (tensor<16x!llvm.ptr>, tensor<16xi32>) -> tensor<16x!llvm.ptr>
    %6 = "tt.load"(%5) : (tensor<16x!llvm.ptr>) -> tensor<16xi64>
    %7 = "tt.scan"(%6) <{axis = 0 : i32, reverse = true}> ({
    ^bb0(%arg5: i64, %arg6: i64):
      %22 = arith.addi %arg5, %arg6 : i64
      "tt.scan.return"(%22) : (i64) -> ()
    }) : (tensor<16xi64>) -> tensor<16xi64>
    %8 = "tt.addptr"(%arg1, %0) {elem_bytes = 8 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %9 = "tt.load"(%8) : (!llvm.ptr) -> i64
    %10 = "tt.addptr"(%arg0, %1) {elem_bytes = 1 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %11 = "tt.splat"(%10) : (!llvm.ptr) -> tensor<16x!llvm.ptr>
    %12 = "tt.addptr"(%11, %3) {elem_bytes = 1 : i64} : (tensor<16x!llvm.ptr>, tensor<16xi32>) -> tensor<16x!llvm.ptr>
    %13 = "tt.load"(%12) : (tensor<16x!llvm.ptr>) -> tensor<16xf8E5M2>
    %14 = "tt.splat"(%9) : (i64) -> tensor<16xi64>
    %15 = arith.maxsi %7, %14 : tensor<16xi64>
    %16 = "tt.addptr"(%arg3, %1) {elem_bytes = 1 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %17 = "tt.splat"(%16) : (!llvm.ptr) -> tensor<16x!llvm.ptr>
    %18 = "tt.addptr"(%17, %3) {elem_bytes = 1 : i64} : (tensor<16x!llvm.ptr>, tensor<16xi32>) -> tensor<16x!llvm.ptr>
    "tt.store"(%18, %13) : (tensor<16x!llvm.ptr>, tensor<16xf8E5M2>) -> ()
    %19 = "tt.addptr"(%arg4, %1) {elem_bytes = 8 : i64} : (!llvm.ptr, i32) -> !llvm.ptr
    %20 = "tt.splat"(%19) : (!llvm.ptr) -> tensor<16x!llvm.ptr>
    %21 = "tt.addptr"(%20, %3) {elem_bytes = 8 : i64} : (tensor<16x!llvm.ptr>, tensor<16xi32>) -> tensor<16x!llvm.ptr>
    "tt.store"(%21, %15) : (tensor<16x!llvm.ptr>, tensor<16xi64>) -> ()
    return
  }
}
