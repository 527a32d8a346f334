// 8-bit floats are bytes, bf16 is i16: loaded, chosen, stored; constants by their bits.
// RUN: torchport opt -p lower-narrow-floats %s | filecheck %s

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

// CHECK-LABEL: func.func @bf16
// 1.5 is 0 01111111 1000000; the smallest subnormal is its last bit; minus zero and minus infinity keep their signs.
// CHECK: arith.constant 16320 : i16
// CHECK: arith.constant dense<1> : vector<8xi16>
// CHECK: arith.constant dense<-32768> : vector<8xi16>
// CHECK: arith.constant dense<-128> : vector<8xi16>
// CHECK: llvm.intr.masked.load %{{.*}} -> vector<8xi16>
// CHECK: scf.if %{{.*}} -> (i16)
// CHECK: llvm.load %{{.*}} -> i16
// CHECK: vector.broadcast %{{.*}} : i16 to vector<8xi16>
// CHECK: scf.for {{.*}} -> (vector<8xi16>)
// CHECK: llvm.intr.masked.store %{{.*}} : vector<8xi16>
// CHECK: llvm.store %{{.*}} : i16, !llvm.ptr
// f16 has registers.
// CHECK: llvm.load %{{.*}} -> f16
// CHECK-NOT: bf16
func.func @bf16(%in: !llvm.ptr, %out: !llvm.ptr, %some: i1, %mask: vector<8xi1>, %n: index) {
  %one_half = arith.constant 1.5 : bf16
  %least = arith.constant dense<0x0001> : vector<8xbf16>
  %zero = arith.constant dense<-0.0> : vector<8xbf16>
  %low = arith.constant dense<0xFF80> : vector<8xbf16>
  %x = llvm.intr.masked.load %in, %mask, %zero {alignment = 2 : i32} : (!llvm.ptr, vector<8xi1>, vector<8xbf16>) -> vector<8xbf16>
  %s = scf.if %some -> (bf16) {
    %loaded = llvm.load %in {alignment = 2 : i64} : !llvm.ptr -> bf16
    scf.yield %loaded : bf16
  } else {
    scf.yield %one_half : bf16
  }
  %y = vector.broadcast %s : bf16 to vector<8xbf16>
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %z = scf.for %i = %c0 to %n step %c1 iter_args(%kept = %y) -> (vector<8xbf16>) {
    %next = arith.select %mask, %kept, %least : vector<8xi1>, vector<8xbf16>
    %other = arith.select %mask, %next, %low : vector<8xi1>, vector<8xbf16>
    scf.yield %other : vector<8xbf16>
  }
  %w = arith.select %mask, %x, %z : vector<8xi1>, vector<8xbf16>
  llvm.intr.masked.store %w, %out, %mask {alignment = 2 : i32} : vector<8xbf16>, vector<8xi1> into !llvm.ptr
  llvm.store %s, %out {alignment = 2 : i64} : bf16, !llvm.ptr
  %h = llvm.load %in {alignment = 2 : i64} : !llvm.ptr -> f16
  llvm.store %h, %out {alignment = 2 : i64} : f16, !llvm.ptr
  return
}
