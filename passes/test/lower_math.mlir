// RUN: torchport opt -p lower-math %s | filecheck %s

// CHECK-LABEL: func.func @inline_exp
// CHECK-NOT: call
// CHECK: math.fma
// CHECK: return
func.func @inline_exp(%x: vector<8xf32>) -> vector<8xf32> {
  %r = math.exp %x : vector<8xf32>
  return %r : vector<8xf32>
}

// One call a 256-bit register; the last three lanes are padded.
// CHECK-LABEL: func.func @split_and_pad
// CHECK: call @Sleef_sinf8_u10
// CHECK: call @Sleef_sinf8_u10
// CHECK: vector.insert_strided_slice
// CHECK-NOT: math.sin
func.func @split_and_pad(%x: vector<11xf32>) -> vector<11xf32> {
  %r = math.sin %x : vector<11xf32>
  return %r : vector<11xf32>
}

// CHECK-LABEL: func.func @scalar
// CHECK: vector.broadcast
// CHECK: call @Sleef_powd4_u10
// CHECK: vector.extract
func.func @scalar(%x: f64, %y: f64) -> f64 {
  %r = "tp.extern"(%x, %y) {symbol = "tp_pow_f64"} : (f64, f64) -> f64
  return %r : f64
}

// CHECK-LABEL: func.func @exact
// CHECK-NEXT: math.sqrt
// CHECK-NEXT: math.floor
func.func @exact(%x: vector<8xf32>) -> vector<8xf32> {
  %s = math.sqrt %x : vector<8xf32>
  %r = math.floor %s : vector<8xf32>
  return %r : vector<8xf32>
}

// CHECK-LABEL: func.func @narrow
// CHECK: arith.extf %{{.*}} : vector<8xbf16> to vector<8xf32>
// CHECK: math.floor %{{.*}} : vector<8xf32>
// CHECK: arith.truncf %{{.*}} : vector<8xf32> to vector<8xbf16>
func.func @narrow(%x: vector<8xbf16>) -> vector<8xbf16> {
  %r = math.floor %x : vector<8xbf16>
  return %r : vector<8xbf16>
}

// CHECK-LABEL: func.func @other_targets_symbols
// CHECK-COUNT-2: call @Sleef_erfcf8_u15
func.func @other_targets_symbols(%x: vector<8xf32>) -> vector<8xf32> {
  %a = "tp.extern"(%x) {symbol = "__nv_erfcf"} : (vector<8xf32>) -> vector<8xf32>
  %r = "tp.extern"(%a) {symbol = "__ocml_erfc_f32"} : (vector<8xf32>) -> vector<8xf32>
  return %r : vector<8xf32>
}

// Triton gives CUDA's predicates the type they have in C.
// CHECK-LABEL: func.func @predicate
// CHECK: %[[INF:.*]] = arith.cmpf oeq
// CHECK-NEXT: arith.extui %[[INF]] : vector<8xi1> to vector<8xi32>
func.func @predicate(%x: vector<8xf32>) -> vector<8xi32> {
  %r = "tp.extern"(%x) {symbol = "__nv_isinff"} : (vector<8xf32>) -> vector<8xi32>
  return %r : vector<8xi32>
}

// A softmax's weights: 0 or normal, so that the exponent is added in one step. NaN is no less than -126.
// CHECK-LABEL: func.func @flushed
// CHECK-NOT: arith.shrsi
// CHECK: arith.shli
// CHECK: arith.addi
// CHECK: arith.cmpf oge, %{{.*}}, %{{.*}} : vector<8xf32>
// CHECK: return
func.func @flushed(%x: vector<8xf32>) -> vector<8xf32> {
  %least = arith.constant dense<-126.0> : vector<8xf32>
  %low = arith.constant dense<0xFF800000> : vector<8xf32>
  %gone = arith.cmpf olt, %x, %least : vector<8xf32>
  %kept = arith.select %gone, %low, %x : vector<8xi1>, vector<8xf32>
  %r = math.exp2 %kept : vector<8xf32>
  return %r : vector<8xf32>
}

// Denormal results are kept: rounded once, by two powers of two.
// CHECK-LABEL: func.func @kept
// CHECK: arith.shrsi
// CHECK: return
func.func @kept(%x: vector<8xf32>) -> vector<8xf32> {
  %least = arith.constant dense<-130.0> : vector<8xf32>
  %low = arith.constant dense<0xFF800000> : vector<8xf32>
  %gone = arith.cmpf olt, %x, %least : vector<8xf32>
  %kept = arith.select %gone, %low, %x : vector<8xi1>, vector<8xf32>
  %r = math.exp2 %kept : vector<8xf32>
  return %r : vector<8xf32>
}
