// RUN: torchport opt -p lower-casts %s | filecheck %s

// CHECK-LABEL: func.func @to_bf16
// CHECK-NOT: arith.truncf
// CHECK: arith.trunci %{{.*}} : vector<8xi32> to vector<8xi16>
// CHECK: arith.bitcast %{{.*}} : vector<8xi16> to vector<8xbf16>
func.func @to_bf16(%x: vector<8xf32>) -> vector<8xbf16> {
  %r = arith.truncf %x : vector<8xf32> to vector<8xbf16>
  return %r : vector<8xbf16>
}

// CHECK-LABEL: func.func @bf16_add
// CHECK: arith.shli
// CHECK: arith.addf %{{.*}} : vector<8xf32>
func.func @bf16_add(%x: vector<8xbf16>, %y: vector<8xbf16>) -> vector<8xbf16> {
  %r = arith.addf %x, %y : vector<8xbf16>
  return %r : vector<8xbf16>
}

// CHECK-LABEL: func.func @to_int
// CHECK: arith.fptosi
// CHECK: arith.select
func.func @to_int(%x: vector<8xf32>) -> vector<8xi32> {
  %r = arith.fptosi %x : vector<8xf32> to vector<8xi32>
  return %r : vector<8xi32>
}

// CHECK-LABEL: func.func @bool
// CHECK-NOT: arith.uitofp
// CHECK: arith.select
func.func @bool(%x: vector<8xi1>) -> vector<8xf32> {
  %r = arith.uitofp %x : vector<8xi1> to vector<8xf32>
  return %r : vector<8xf32>
}

// bfloat16 has all integers of 8 bits: nothing is rounded.
// CHECK-LABEL: func.func @bytes
// CHECK: %[[WIDE:.*]] = arith.sitofp %{{.*}} : vector<8xi8> to vector<8xf32>
// CHECK-NEXT: return %[[WIDE]]
func.func @bytes(%x: vector<8xi8>) -> vector<8xf32> {
  %n = arith.sitofp %x : vector<8xi8> to vector<8xbf16>
  %r = arith.extf %n : vector<8xbf16> to vector<8xf32>
  return %r : vector<8xf32>
}

// CHECK-LABEL: func.func @bytes_stored
// CHECK: arith.uitofp %{{.*}} : vector<8xi8> to vector<8xf32>
// CHECK-NOT: arith.addi
// CHECK: arith.trunci
func.func @bytes_stored(%x: vector<8xi8>) -> vector<8xbf16> {
  %r = arith.uitofp %x : vector<8xi8> to vector<8xbf16>
  return %r : vector<8xbf16>
}

// 1,000 is no bfloat16.
// CHECK-LABEL: func.func @words
// CHECK: arith.sitofp %{{.*}} : vector<8xi16> to vector<8xf32>
// CHECK: arith.addi
func.func @words(%x: vector<8xi16>) -> vector<8xf32> {
  %n = arith.sitofp %x : vector<8xi16> to vector<8xbf16>
  %r = arith.extf %n : vector<8xbf16> to vector<8xf32>
  return %r : vector<8xf32>
}

// CHECK-LABEL: func.func @fp8
// CHECK-NOT: tp.fp_to_fp
func.func @fp8(%x: vector<8xf32>) -> vector<8xf8E4M3FN> {
  %r = "tp.fp_to_fp"(%x) {rounding = "rtne"} : (vector<8xf32>) -> vector<8xf8E4M3FN>
  return %r : vector<8xf8E4M3FN>
}

// CHECK-LABEL: func.func @unchanged
// CHECK-NEXT: arith.truncf %{{.*}} : vector<8xf64> to vector<8xf32>
func.func @unchanged(%x: vector<8xf64>) -> vector<8xf32> {
  %r = arith.truncf %x : vector<8xf64> to vector<8xf32>
  return %r : vector<8xf32>
}

// Without instructions for f16 its conversions are integer code.
// RUN: torchport opt -p 'lower-casts{half=false}' %s | filecheck %s --check-prefix=SOFT

// CHECK-LABEL: func.func @f16_add
// CHECK: arith.extf %{{.*}} : vector<8xf16> to vector<8xf32>
// CHECK: arith.truncf %{{.*}} : vector<8xf32> to vector<8xf16>
// SOFT-LABEL: func.func @f16_add
// SOFT-NOT: arith.extf
// SOFT-NOT: arith.truncf
func.func @f16_add(%x: vector<8xf16>, %y: vector<8xf16>) -> vector<8xf16> {
  %r = arith.addf %x, %y : vector<8xf16>
  return %r : vector<8xf16>
}
