// Checks become calls that all use the same stack memory; the kernel gets the launch's address and says which program
// instance it is.
// RUN: torchport opt %s -p lower-checks | filecheck %s

// CHECK: func.func private @torchport_sanitizer_check(i32, i64, !llvm.ptr, !llvm.ptr)
// CHECK-NEXT: func.func private @torchport_sanitizer_enter(i64, i32, i32, i32)
// CHECK-LABEL: func.func @kernel(%arg0: !llvm.ptr {tt.divisibility = 16 : i32}, %arg1: i1, %arg2: vector<4xi64>, %arg3: i64)
// CHECK: %[[Z:.*]] = "tt.get_program_id"() {axis = 2 : i32}
// CHECK-NEXT: call @torchport_sanitizer_enter(%arg3, %{{.*}}, %{{.*}}, %[[Z]])
// CHECK: %[[ADDRESSES:.*]] = llvm.alloca %c32_i64 x i8 {alignment = 64 : i64}
// CHECK-NEXT: %[[MASK:.*]] = llvm.alloca %c4_i64 x i8 {alignment = 64 : i64}
// CHECK: %[[ADDRESS:.*]] = llvm.ptrtoint %arg0 : !llvm.ptr to i64
// CHECK-NEXT: %[[ACTIVE:.*]] = arith.extui %arg1 : i1 to i8
// CHECK-NEXT: llvm.store %[[ADDRESS]], %[[ADDRESSES]]
// CHECK-NEXT: llvm.store %[[ACTIVE]], %[[MASK]]
// CHECK: call @torchport_sanitizer_check(%c0_i32, %c1_i64, %[[ADDRESSES]], %[[MASK]])
// CHECK-NEXT: llvm.load %[[MASK]] {alignment = 1 : i64} : !llvm.ptr -> i8
// CHECK: scf.if
// CHECK: arith.constant dense<1> : vector<4xi8>
// CHECK-NEXT: llvm.store %arg2, %[[ADDRESSES]] {alignment = 8 : i64} : vector<4xi64>
// CHECK: func.call @torchport_sanitizer_check(%c7_i32, %{{.*}}, %[[ADDRESSES]], %[[MASK]])
// CHECK-NEXT: %[[BYTES:.*]] = llvm.load %[[MASK]] {alignment = 1 : i64} : !llvm.ptr -> vector<4xi8>
// CHECK-NEXT: %[[ALLOWED:.*]] = arith.trunci %[[BYTES]] : vector<4xi8> to vector<4xi1>
// CHECK-NEXT: "test.use"(%[[ALLOWED]])
func.func @kernel(%p: !llvm.ptr {tt.divisibility = 16 : i32}, %m: i1, %addresses: vector<4xi64>) {
  %a = "tp.check"(%p, %m) {access = "store", bytes = 4 : i64, site = 0 : i64} : (!llvm.ptr, i1) -> i1
  scf.if %a {
    %b = "tp.check"(%addresses) {access = "load", bytes = 4 : i64, site = 7 : i64} : (vector<4xi64>) -> vector<4xi1>
    "test.use"(%b) : (vector<4xi1>) -> ()
  }
  return
}
