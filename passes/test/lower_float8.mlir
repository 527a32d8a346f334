// 8-bit floats are bytes: loaded, chosen, stored; constants by their bits.
// RUN: torchport opt -p lower-float8 %s | filecheck %s

// CHECK-LABEL: func.func @chosen
// CHECK: %[[X:.*]] = llvm.load %arg0 {{.*}} -> vector<8xi8>
// 1.5 is 0 0111 100 with a bias of 7; minus zero keeps its sign.
// CHECK: arith.constant dense<60> : vector<8xi8>
// CHECK: arith.constant dense<-128> : vector<8xi8>
// CHECK: %[[Z:.*]] = arith.select %{{.*}}, %[[X]], %{{.*}} : vector<8xi1>, vector<8xi8>
// CHECK: llvm.store %[[Z]], %arg1
// CHECK-NOT: f8E4M3FN
func.func @chosen(%in: !llvm.ptr, %out: !llvm.ptr, %mask: vector<8xi1>) {
  %bytes = llvm.load %in {alignment = 1 : i64} : !llvm.ptr -> vector<8xi8>
  %x = arith.bitcast %bytes : vector<8xi8> to vector<8xf8E4M3FN>
  %y = arith.constant dense<1.5> : vector<8xf8E4M3FN>
  %zero = arith.constant dense<-0.0> : vector<8xf8E4M3FN>
  %some = arith.select %mask, %y, %zero : vector<8xi1>, vector<8xf8E4M3FN>
  %z = arith.select %mask, %x, %some : vector<8xi1>, vector<8xf8E4M3FN>
  %stored = arith.bitcast %z : vector<8xf8E4M3FN> to vector<8xi8>
  llvm.store %stored, %out {alignment = 1 : i64} : vector<8xi8>, !llvm.ptr
  return
}
