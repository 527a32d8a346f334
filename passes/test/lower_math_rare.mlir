// fmod and rsqrt of f32 are straight-line code for ordinary numbers; a vector with others branches.
// RUN: torchport opt %s -p 'lower-math{vector_bits=256}' | filecheck %s

// CHECK-LABEL: func.func @remainder
// CHECK: %[[QUOTIENT:.*]] = arith.divf %{{.*}}, %{{.*}} : vector<8xf32>
// CHECK: %[[WHOLE:.*]] = math.trunc %[[QUOTIENT]]
// CHECK-NOT: f64
// CHECK: llvm.intr.expect
// CHECK: scf.if
// CHECK: func.call @Sleef_fmodd4
// CHECK: arith.select
// CHECK: } else {
// CHECK-NOT: call
func.func @remainder(%x: vector<8xf32>, %y: vector<8xf32>) -> vector<8xf32> {
  %z = arith.remf %x, %y : vector<8xf32>
  return %z : vector<8xf32>
}

// CHECK-LABEL: func.func @root
// CHECK: math.sqrt
// CHECK: scf.if
// CHECK: math.sqrt
// CHECK: arith.select
// CHECK: } else {
// CHECK-NOT: math.sqrt
func.func @root(%x: vector<8xf32>) -> vector<8xf32> {
  %y = math.rsqrt %x : vector<8xf32>
  return %y : vector<8xf32>
}

// A row's root is one number: no branch.
// CHECK-LABEL: func.func @root_of_a_row
// CHECK-NOT: scf.if
func.func @root_of_a_row(%x: f32) -> f32 {
  %y = math.rsqrt %x : f32
  return %y : f32
}
