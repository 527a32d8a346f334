// RUN: torchport opt %s -p 'narrow-functions' | filecheck %s

// 1 + exp(x) becomes bf16 after a quotient and a product: a power of two of fewer instructions.
// CHECK-LABEL: func.func @sigmoid
// CHECK-NOT: math.exp
// CHECK: math.fma
// CHECK: arith.shli
// CHECK: arith.addf
// CHECK: arith.divf
func.func @sigmoid(%x: vector<16xf32>) -> vector<16xbf16> {
  %one = arith.constant dense<1.0> : vector<16xf32>
  %minus = arith.negf %x : vector<16xf32>
  %exp = math.exp %minus : vector<16xf32>
  %sum = arith.addf %exp, %one : vector<16xf32>
  %part = arith.divf %one, %sum : vector<16xf32>
  %value = arith.mulf %x, %part : vector<16xf32>
  %narrow = arith.truncf %value : vector<16xf32> to vector<16xbf16>
  return %narrow : vector<16xbf16>
}

// The other order of the sum, and scalars.
// CHECK-LABEL: func.func @gelu
// CHECK-NOT: math.erf
// CHECK: math.absf
// CHECK: arith.truncf
func.func @gelu(%x: f32) -> bf16 {
  %one = arith.constant 1.0 : f32
  %erf = math.erf %x : f32
  %sum = arith.addf %one, %erf : f32
  %value = arith.mulf %x, %sum : f32
  %narrow = arith.truncf %value : f32 to bf16
  return %narrow : bf16
}

// CHECK-LABEL: func.func @tanh
// CHECK-NOT: math.tanh
// CHECK: arith.divf
func.func @tanh(%x: vector<8xf32>) -> vector<8xbf16> {
  %one = arith.constant dense<1.0> : vector<8xf32>
  %tanh = math.tanh %x : vector<8xf32>
  %sum = arith.addf %tanh, %one : vector<8xf32>
  %value = arith.mulf %x, %sum : vector<8xf32>
  %narrow = arith.truncf %value : vector<8xf32> to vector<8xbf16>
  return %narrow : vector<8xbf16>
}

// The function is used elsewhere, too: it stays for that.
// CHECK-LABEL: func.func @twice
// CHECK: math.exp
// CHECK: arith.shli
func.func @twice(%x: vector<16xf32>) -> (vector<16xbf16>, vector<16xf32>) {
  %one = arith.constant dense<1.0> : vector<16xf32>
  %exp = math.exp %x : vector<16xf32>
  %sum = arith.addf %exp, %one : vector<16xf32>
  %narrow = arith.truncf %sum : vector<16xf32> to vector<16xbf16>
  return %narrow, %exp : vector<16xbf16>, vector<16xf32>
}

// What is kept in f32, becomes f16, is added to something or begins with another number stays as it is.
// CHECK-LABEL: func.func @others
// CHECK-COUNT-4: math.exp
// CHECK-NOT: arith.shli
func.func @others(%x: vector<16xf32>) -> (vector<16xf32>, vector<16xf16>, vector<16xbf16>, vector<16xbf16>) {
  %one = arith.constant dense<1.0> : vector<16xf32>
  %two = arith.constant dense<2.0> : vector<16xf32>
  %exp0 = math.exp %x : vector<16xf32>
  %kept = arith.addf %exp0, %one : vector<16xf32>
  %kept1 = arith.truncf %kept : vector<16xf32> to vector<16xbf16>
  %exp1 = math.exp %kept : vector<16xf32>
  %half = arith.addf %exp1, %one : vector<16xf32>
  %half1 = arith.truncf %half : vector<16xf32> to vector<16xf16>
  %exp2 = math.exp %x : vector<16xf32>
  %added = arith.addf %exp2, %one : vector<16xf32>
  %added1 = arith.subf %added, %x : vector<16xf32>
  %added2 = arith.truncf %added1 : vector<16xf32> to vector<16xbf16>
  %exp3 = math.exp %x : vector<16xf32>
  %other = arith.addf %exp3, %two : vector<16xf32>
  %other1 = arith.truncf %other : vector<16xf32> to vector<16xbf16>
  return %kept, %half1, %added2, %other1 : vector<16xf32>, vector<16xf16>, vector<16xbf16>, vector<16xbf16>
}

// A quotient by a number: a product with its reciprocal where that is a normal number and the result becomes bf16.
// CHECK-LABEL: func.func @quotients
// CHECK-DAG: %[[SIXTH:.*]] = arith.constant dense<0.166666672> : vector<8xf32>
// CHECK: arith.mulf %arg0, %[[SIXTH]]
// CHECK-COUNT-3: arith.divf
func.func @quotients(%x: vector<8xf32>) -> (vector<8xbf16>, vector<8xbf16>, vector<8xf16>, vector<8xf32>) {
  %six = arith.constant dense<6.0> : vector<8xf32>
  %huge = arith.constant dense<1.0e38> : vector<8xf32>
  %0 = arith.divf %x, %six : vector<8xf32>
  %a = arith.truncf %0 : vector<8xf32> to vector<8xbf16>
  %1 = arith.divf %x, %huge : vector<8xf32>
  %b = arith.truncf %1 : vector<8xf32> to vector<8xbf16>
  %2 = arith.divf %x, %six : vector<8xf32>
  %c = arith.truncf %2 : vector<8xf32> to vector<8xf16>
  %3 = arith.divf %x, %six : vector<8xf32>
  return %a, %b, %c, %3 : vector<8xbf16>, vector<8xbf16>, vector<8xf16>, vector<8xf32>
}
