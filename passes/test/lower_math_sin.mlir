// sin of f32 is straight-line code with one polynomial, whose coefficients are chosen; only a vector with an argument beyond 65536 calls Sleef.
// RUN: torchport opt %s -p 'lower-math{vector_bits=256}' | filecheck %s

// CHECK: func.func private @Sleef_sinf8_u10(vector<8xf32>) -> vector<8xf32>
// CHECK-LABEL: func.func @sine
// CHECK-COUNT-4: math.fma
// CHECK: %[[SINE:.*]] = arith.cmpi ne
// CHECK-COUNT-4: arith.select
// CHECK-COUNT-5: math.fma
// CHECK-NOT: math.fma
// CHECK: %[[FAR:.*]] = arith.cmpf ogt, %{{.*}}, %{{.*}} : vector<8xf32>
// CHECK: %[[SOME:.*]] = vector.reduction <or>, %[[FAR]] : vector<8xi1> into i1
// CHECK: %[[RARE:.*]] = llvm.intr.expect %[[SOME]], %{{.*}} : i1
// CHECK: scf.if %[[RARE]]
// CHECK: func.call @Sleef_sinf8_u10
// CHECK: arith.select %[[FAR]]
// CHECK: } else {
// CHECK-NOT: call
func.func @sine(%x: vector<8xf32>) -> vector<8xf32> {
  %y = math.sin %x : vector<8xf32>
  return %y : vector<8xf32>
}
