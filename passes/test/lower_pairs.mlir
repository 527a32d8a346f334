// RUN: torchport opt %s -p 'lower-pairs' | filecheck %s

// CHECK-LABEL: func.func @wide
// CHECK: %[[A:.*]] = llvm.bitcast %arg0 : vector<16xi32> to vector<32xbf16>
// CHECK: %[[B:.*]] = llvm.bitcast %arg1 : vector<16xi32> to vector<32xbf16>
// CHECK: llvm.call_intrinsic "llvm.x86.avx512bf16.dpbf16ps.512"(%arg2, %[[A]], %[[B]])
func.func @wide(%a: vector<16xi32>, %b: vector<16xi32>, %c: vector<16xf32>) -> vector<16xf32> {
  %sum = "tp.add_pairs"(%a, %b, %c) : (vector<16xi32>, vector<16xi32>, vector<16xf32>) -> vector<16xf32>
  return %sum : vector<16xf32>
}

// CHECK-LABEL: func.func @narrow
// CHECK: "llvm.x86.avx512bf16.dpbf16ps.128"{{.*}} : (vector<4xf32>, vector<8xbf16>, vector<8xbf16>) -> vector<4xf32>
func.func @narrow(%a: vector<4xi32>, %b: vector<4xi32>, %c: vector<4xf32>) -> vector<4xf32> {
  %sum = "tp.add_pairs"(%a, %b, %c) : (vector<4xi32>, vector<4xi32>, vector<4xf32>) -> vector<4xf32>
  return %sum : vector<4xf32>
}
