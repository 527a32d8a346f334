// RUN: torchport opt %s -p clean-up | filecheck %s
// One of two equal sums stays; what nothing uses goes.

// CHECK-LABEL: func.func @kernel
// CHECK: %[[SUM:.*]] = arith.addi %arg0, %arg1
// CHECK-NOT: arith.addi
// CHECK: arith.muli %[[SUM]], %[[SUM]]
// CHECK-NOT: arith.subi
func.func @kernel(%a: i32, %b: i32) -> i32 {
  %x = arith.addi %a, %b : i32
  %y = arith.addi %a, %b : i32
  %dead = arith.subi %a, %b : i32
  %z = arith.muli %x, %y : i32
  return %z : i32
}
