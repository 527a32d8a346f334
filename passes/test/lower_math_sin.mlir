// sin of f32 is straight-line code with one polynomial, whose coefficients are chosen; sine and cosine of one value share
// the reduction and have both polynomials. Only a vector with an argument beyond 2^16 pi/2 calls Sleef.
// RUN: torchport opt %s -p 'lower-math{vector_bits=256}' | filecheck %s

// CHECK: func.func private @Sleef_cosf8_u10(vector<8xf32>) -> vector<8xf32>
// CHECK: func.func private @Sleef_sinf8_u10(vector<8xf32>) -> vector<8xf32>
// CHECK-LABEL: func.func @sine
// CHECK-COUNT-4: math.fma
// CHECK: %[[EVEN:.*]] = arith.cmpi eq
// CHECK: arith.select %[[EVEN]]
// CHECK-COUNT-6: math.fma
// CHECK-NOT: math.fma
// CHECK: %[[FAR:.*]] = arith.cmpi ne, %{{.*}}, %{{.*}} : vector<8xi32>
// CHECK: %[[SOME:.*]] = vector.reduction <or>, %{{.*}} : vector<8xi1> into i1
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

// CHECK-LABEL: func.func @cosine_then_sine
// CHECK-COUNT-13: math.fma
// CHECK-NOT: math.fma
// CHECK: scf.if {{.*}} -> (vector<16xf32>, vector<16xf32>)
// CHECK-COUNT-2: func.call @Sleef_sinf8_u10
// CHECK-COUNT-2: func.call @Sleef_cosf8_u10
// CHECK-NOT: scf.if
func.func @cosine_then_sine(%x: vector<16xf32>) -> (vector<16xf32>, vector<16xf32>) {
  %y = math.cos %x : vector<16xf32>
  %z = math.sin %x : vector<16xf32>
  return %z, %y : vector<16xf32>, vector<16xf32>
}

// CHECK-LABEL: func.func @of_two_values
// CHECK: scf.if {{.*}} -> (vector<8xf32>)
// CHECK: scf.if {{.*}} -> (vector<8xf32>)
func.func @of_two_values(%x: vector<8xf32>, %y: vector<8xf32>) -> (vector<8xf32>, vector<8xf32>) {
  %a = math.cos %x : vector<8xf32>
  %b = math.sin %y : vector<8xf32>
  return %a, %b : vector<8xf32>, vector<8xf32>
}
