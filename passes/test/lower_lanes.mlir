// Operations in which lanes meet other lanes by position become loops over buffers.
// RUN: torchport opt -p lower-lanes %s | filecheck %s

// Nothing follows the axis in memory: vectors along it are scanned in themselves, in two steps for four lanes. Running
// sums of f32 are kept in f64.
// CHECK-LABEL: func.func @scan_rows
// CHECK: scf.for %[[ROW:.*]] = %{{.*}} to %c4_i64
// CHECK: scf.for %{{.*}} = %c1_i64{{.*}} to %c4_i64{{.*}} iter_args(%[[BEFORE:.*]] = %{{.*}}) -> (vector<4xf64>)
// CHECK: %[[LOADED:.*]] = llvm.load %{{.*}} : !llvm.ptr -> vector<4xf32>
// CHECK: %[[X:.*]] = arith.extf %[[LOADED]] : vector<4xf32> to vector<4xf64>
// CHECK: %[[NEXT:.*]] = vector.shuffle %[[X]], %[[X]] [0, 0, 1, 2]
// CHECK: %[[TWO:.*]] = arith.addf %[[NEXT]], %[[X]]
// CHECK: %[[PAIRS:.*]] = arith.select %{{.*}}, %[[TWO]], %[[X]]
// CHECK: vector.shuffle %[[PAIRS]], %[[PAIRS]] [0, 0, 0, 1]
// CHECK: %[[LOCAL:.*]] = arith.select
// CHECK: %[[SUM:.*]] = arith.addf %[[BEFORE]], %[[LOCAL]] : vector<4xf64>
// CHECK: %[[ROUNDED:.*]] = arith.truncf %[[SUM]] : vector<4xf64> to vector<4xf32>
// CHECK: llvm.store %[[ROUNDED]], %{{.*}}
// CHECK: %[[LAST:.*]] = vector.shuffle %[[LOCAL]], %[[LOCAL]] [3, 3, 3, 3]
// CHECK: %[[CARRIED:.*]] = arith.addf %[[BEFORE]], %[[LAST]]
// CHECK: scf.yield %[[CARRIED]]
func.func @scan_rows(%in: !llvm.ptr, %out: !llvm.ptr) {
  "tp.scan"(%in, %out) ({
  ^bb0(%a: f32, %b: f32):
    %c = arith.addf %a, %b : f32
    "tt.scan.return"(%c) : (f32) -> ()
  }) {axis = 1 : i32, reverse = false, operand_types = [tensor<4x16xf32>], result_types = [tensor<4x16xf32>]} : (!llvm.ptr, !llvm.ptr) -> ()
  return
}

// Columns are neighbours: eight scans run as the lanes of a vector, from the last row (3) to the first.
// CHECK-LABEL: func.func @scan_columns_backwards
// CHECK: scf.for %{{.*}} = %{{.*}} to %c16_i64{{.*}} step %c8_i64
// CHECK: %[[LAST:.*]] = llvm.load %{{.*}} : !llvm.ptr -> vector<8xf32>
// CHECK: scf.for %[[STEP:.*]] = %c1_i64{{.*}} to %c4_i64{{.*}} iter_args(%[[MOST:.*]] = %[[LAST]]) -> (vector<8xf32>)
// CHECK: %[[ROW:.*]] = arith.subi %c3_i64{{.*}}, %[[STEP]] : i64
// CHECK: arith.maximumf %[[MOST]], %{{.*}} : vector<8xf32>
// CHECK: llvm.store %{{.*}} : vector<8xf32>, !llvm.ptr
func.func @scan_columns_backwards(%in: !llvm.ptr, %out: !llvm.ptr) {
  "tp.scan"(%in, %out) ({
  ^bb0(%a: f32, %b: f32):
    %c = arith.maximumf %a, %b : f32
    "tt.scan.return"(%c) : (f32) -> ()
  }) {axis = 0 : i32, reverse = true, operand_types = [tensor<4x16xf32>], result_types = [tensor<4x16xf32>]} : (!llvm.ptr, !llvm.ptr) -> ()
  return
}

// An index outside of the source is clamped: the buffer is never left.
// CHECK-LABEL: func.func @gather
// CHECK: %[[INDEX:.*]] = arith.extsi %{{.*}} : i32 to i64
// CHECK: %[[LOW:.*]] = arith.maxsi %[[INDEX]], %c0_i64{{.*}} : i64
// CHECK: %[[CLAMPED:.*]] = arith.minsi %[[LOW]], %c7_i64{{.*}} : i64
// CHECK: llvm.getelementptr %arg0[%{{.*}}]
// CHECK: llvm.getelementptr %arg2[%{{.*}}]
// CHECK: llvm.store %{{.*}} : f32, !llvm.ptr
func.func @gather(%in: !llvm.ptr, %index: !llvm.ptr, %out: !llvm.ptr) {
  "tp.gather"(%in, %index, %out) {axis = 0 : i32, operand_types = [tensor<8xf32>, tensor<16xi32>], result_types = [tensor<16xf32>]} : (!llvm.ptr, !llvm.ptr, !llvm.ptr) -> ()
  return
}

// Bins start at zero; values outside of them count nowhere (negative ones are large when unsigned).
// CHECK-LABEL: func.func @histogram
// CHECK: scf.for %{{.*}} = %{{.*}} to %c10_i64
// CHECK: llvm.store %c0_i32{{.*}} : i32, !llvm.ptr
// CHECK: scf.for %{{.*}} = %{{.*}} to %c64_i64
// CHECK: %[[VALUE:.*]] = arith.extsi %{{.*}} : i32 to i64
// CHECK: %[[INSIDE:.*]] = arith.cmpi ult, %[[VALUE]], %c10_i64{{.*}} : i64
// CHECK: scf.if %[[INSIDE]] {
// CHECK: llvm.getelementptr %arg1[%[[VALUE]]]
// CHECK: arith.addi %{{.*}}, %c1_i32 : i32
// CHECK: llvm.store %{{.*}} : i32, !llvm.ptr
func.func @histogram(%in: !llvm.ptr, %out: !llvm.ptr) {
  "tp.histogram"(%in, %out) {operand_types = [tensor<64xi32>], result_types = [tensor<10xi32>]} : (!llvm.ptr, !llvm.ptr) -> ()
  return
}

// Vectors of both operands are interleaved in registers.
// CHECK-LABEL: func.func @join
// CHECK: scf.for %[[I:.*]] = %{{.*}} to %c8_i64{{.*}} step %c8_i64
// CHECK: llvm.getelementptr %arg0[%[[I]]]
// CHECK: %[[EVEN:.*]] = llvm.load %{{.*}} -> vector<8xf16>
// CHECK: llvm.getelementptr %arg1[%[[I]]]
// CHECK: %[[ODD:.*]] = llvm.load %{{.*}} -> vector<8xf16>
// CHECK: %[[LOW:.*]] = vector.shuffle %[[EVEN]], %[[ODD]] [0, 8, 1, 9, 2, 10, 3, 11]
// CHECK: llvm.store %[[LOW]], %{{.*}}
// CHECK: %[[HIGH:.*]] = vector.shuffle %[[EVEN]], %[[ODD]] [4, 12, 5, 13, 6, 14, 7, 15]
// CHECK: llvm.store %[[HIGH]], %{{.*}}
func.func @join(%a: !llvm.ptr, %b: !llvm.ptr, %out: !llvm.ptr) {
  "tp.join"(%a, %b, %out) {operand_types = [tensor<8xf16>, tensor<8xf16>], result_types = [tensor<8x2xf16>]} : (!llvm.ptr, !llvm.ptr, !llvm.ptr) -> ()
  return
}

// Booleans take a byte each.
// CHECK-LABEL: func.func @split_bools
// CHECK: %[[FIRST:.*]] = arith.trunci %{{.*}} : vector<8xi8> to vector<8xi1>
// CHECK: %[[SECOND:.*]] = arith.trunci %{{.*}} : vector<8xi8> to vector<8xi1>
// CHECK: %[[EVEN:.*]] = vector.shuffle %[[FIRST]], %[[SECOND]] [0, 2, 4, 6, 8, 10, 12, 14]
// CHECK: %[[BYTES:.*]] = arith.extui %[[EVEN]] : vector<8xi1> to vector<8xi8>
// CHECK: llvm.getelementptr %arg1
// CHECK: llvm.store %[[BYTES]], %{{.*}} {alignment = 1 : i64} : vector<8xi8>, !llvm.ptr
// CHECK: vector.shuffle %[[FIRST]], %[[SECOND]] [1, 3, 5, 7, 9, 11, 13, 15]
// CHECK: llvm.getelementptr %arg2
func.func @split_bools(%in: !llvm.ptr, %a: !llvm.ptr, %b: !llvm.ptr) {
  "tp.split"(%in, %a, %b) {operand_types = [tensor<8x2xi1>], result_types = [tensor<8xi1>, tensor<8xi1>]} : (!llvm.ptr, !llvm.ptr, !llvm.ptr) -> ()
  return
}

// CHECK-LABEL: func.func @cat
// CHECK: scf.for %[[I:.*]] = %{{.*}} to %c8_i64
// CHECK: llvm.getelementptr %arg0[%[[I]]]
// CHECK: llvm.getelementptr %arg2[%{{.*}}]
// CHECK: scf.for %[[J:.*]] = %{{.*}} to %c8_i64
// CHECK: llvm.getelementptr %arg1[%[[J]]]
// CHECK: %[[AFTER:.*]] = arith.addi %[[J]], %c8_i64{{.*}} : i64
// CHECK: llvm.getelementptr %arg2[%[[AFTER]]]
// CHECK-NOT: tp.
func.func @cat(%a: !llvm.ptr, %b: !llvm.ptr, %out: !llvm.ptr) {
  "tp.cat"(%a, %b, %out) {operand_types = [tensor<8xf32>, tensor<8xf32>], result_types = [tensor<16xf32>]} : (!llvm.ptr, !llvm.ptr, !llvm.ptr) -> ()
  return
}

// A network of 64 elements in vectors of eight: stages 1 to 3 are shuffles, 4 to 6 one loop. Code of one size for every
// length.
// CHECK-LABEL: func.func @sort
// CHECK: scf.for %{{.*}} = %{{.*}} to %c64_i64{{.*}} step %c8_i64
// CHECK: vector.shuffle %{{.*}}, %{{.*}} [1, 0, 3, 2, 5, 4, 7, 6]
// CHECK: arith.cmpf ogt
// CHECK: vector.shuffle %{{.*}}, %{{.*}} [2, 3, 0, 1, 6, 7, 4, 5]
// CHECK: vector.shuffle %{{.*}}, %{{.*}} [4, 5, 6, 7, 0, 1, 2, 3]
// CHECK: scf.for %{{.*}} = %c4_i64{{.*}} to %c7_i64
// CHECK: %[[A:.*]] = llvm.load
// CHECK: %[[B:.*]] = llvm.load
// CHECK: %[[MORE:.*]] = arith.cmpf ogt, %[[A]], %[[B]]
// CHECK: arith.select %[[MORE]], %[[B]], %[[A]]
// CHECK: vector.shuffle %{{.*}}, %{{.*}} [4, 5, 6, 7, 0, 1, 2, 3]
// CHECK-NOT: [4, 5, 6, 7, 0, 1, 2, 3]
func.func @sort(%in: !llvm.ptr, %out: !llvm.ptr) {
  "tp.sort"(%in, %out) {first = 1 : i64, last = 6 : i64, order = -1 : i64, operand_types = [tensor<64xf32>], result_types = [tensor<64xf32>]} : (!llvm.ptr, !llvm.ptr) -> ()
  return
}

// The last dimension is turned round inside vectors, another one by rows of vectors.
// CHECK-LABEL: func.func @flip
// CHECK: vector.shuffle %{{.*}} [7, 6, 5, 4, 3, 2, 1, 0]
// CHECK-NOT: vector.shuffle
// CHECK: arith.subi %c3_i64
func.func @flip(%in: !llvm.ptr, %out: !llvm.ptr) {
  "tp.flip"(%in, %out) {dims = array<i64: 2, 64, 1>, operand_types = [tensor<2x64xf32>], result_types = [tensor<2x64xf32>]} : (!llvm.ptr, !llvm.ptr) -> ()
  "tp.flip"(%in, %out) {dims = array<i64: 2, 4, 16>, operand_types = [tensor<2x4x16xf32>], result_types = [tensor<2x4x16xf32>]} : (!llvm.ptr, !llvm.ptr) -> ()
  return
}
