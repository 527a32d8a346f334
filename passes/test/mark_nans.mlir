// RUN: torchport opt %s -p 'mark-nans' | filecheck %s

// A widened bf16 and arithmetic of it: NaNs have short payloads.
// CHECK-LABEL: func.func @arithmetic
// CHECK: arith.truncf %{{.*}} {tp.short_nans} : vector<16xf32> to vector<16xbf16>
func.func @arithmetic(%x: vector<16xbf16>, %i: vector<16xi32>, %c: vector<16xi1>) -> vector<16xbf16> {
  %half = arith.constant dense<0.5> : vector<16xf32>
  %wide = arith.extf %x : vector<16xbf16> to vector<16xf32>
  %number = arith.sitofp %i : vector<16xi32> to vector<16xf32>
  %sum = arith.addf %wide, %number : vector<16xf32>
  %root = math.sqrt %sum : vector<16xf32>
  %exp = math.exp %root : vector<16xf32>
  %one = arith.select %c, %exp, %half : vector<16xi1>, vector<16xf32>
  %narrow = arith.truncf %one : vector<16xf32> to vector<16xbf16>
  return %narrow : vector<16xbf16>
}

// What a loop carries, where it begins so and stays so; two values that depend on each other.
// CHECK-LABEL: func.func @carried
// CHECK: arith.truncf %{{.*}} {tp.short_nans} : f32 to bf16
func.func @carried(%x: bf16, %n: index) -> bf16 {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %wide = arith.extf %x : bf16 to f32
  %sums:2 = scf.for %i = %c0 to %n step %c1 iter_args(%a = %zero, %b = %zero) -> (f32, f32) {
    %p = arith.addf %b, %wide : f32
    %q = arith.mulf %a, %wide : f32
    scf.yield %p, %q : f32, f32
  }
  %narrow = arith.truncf %sums#0 : f32 to bf16
  return %narrow : bf16
}

// It becomes an argument's after a turn, by way of the other one.
// CHECK-LABEL: func.func @carried_unknown
// CHECK: arith.truncf %{{[^{]*}} : f32 to bf16
func.func @carried_unknown(%x: f32, %n: index) -> bf16 {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %sums:2 = scf.for %i = %c0 to %n step %c1 iter_args(%a = %zero, %b = %zero) -> (f32, f32) {
    %p = arith.addf %b, %a : f32
    %q = arith.mulf %b, %x : f32
    scf.yield %p, %q : f32, f32
  }
  %narrow = arith.truncf %sums#0 : f32 to bf16
  return %narrow : bf16
}

// Not known: arguments and loads of f32, f16 (its payload is longer), bits, a NaN, f64, other functions.
// CHECK-LABEL: func.func @unknown
// CHECK-NOT: tp.short_nans
func.func @unknown(%x: f32, %p: !llvm.ptr, %h: f16, %i: i32, %d: f64, %y: bf16)
    -> (bf16, bf16, bf16, bf16, bf16, bf16, bf16, f16) {
  %one = arith.constant 1.0 : f32
  %nan = arith.constant 0x7F8FFFFF : f32
  %0 = arith.addf %x, %one : f32
  %a = arith.truncf %0 : f32 to bf16
  %1 = llvm.load %p : !llvm.ptr -> f32
  %b = arith.truncf %1 : f32 to bf16
  %2 = arith.extf %h : f16 to f32
  %c = arith.truncf %2 : f32 to bf16
  %3 = arith.bitcast %i : i32 to f32
  %e = arith.truncf %3 : f32 to bf16
  %4 = arith.addf %nan, %one : f32
  %f = arith.truncf %4 : f32 to bf16
  %g = arith.truncf %d : f64 to bf16
  %wide = arith.extf %y : bf16 to f32
  %5 = math.cos %wide : f32
  %k = arith.truncf %5 : f32 to bf16
  %l = arith.truncf %wide : f32 to f16
  return %a, %b, %c, %e, %f, %g, %k, %l : bf16, bf16, bf16, bf16, bf16, bf16, bf16, f16
}

// Memory of the program's own that only such are stored in; rsqrt as an external function; choices between regions.
// CHECK-LABEL: func.func @memory
// CHECK: arith.truncf %{{.*}} {tp.short_nans} : f32 to bf16
func.func @memory(%x: bf16, %i: i64, %c: i1) -> bf16 {
  %size = arith.constant 64 : i64
  %m = llvm.alloca %size x i8 : (i64) -> !llvm.ptr
  llvm.intr.lifetime.start %m : !llvm.ptr
  %wide = arith.extf %x : bf16 to f32
  %r = "tp.extern"(%wide) {symbol = "tp_rsqrt_f32"} : (f32) -> f32
  %at = llvm.getelementptr %m[%i] : (!llvm.ptr, i64) -> !llvm.ptr, i32
  llvm.store %r, %at : f32, !llvm.ptr
  %y = llvm.load %m : !llvm.ptr -> f32
  %z = scf.if %c -> (f32) {
    scf.yield %y : f32
  } else {
    scf.yield %wide : f32
  }
  %narrow = arith.truncf %z : f32 to bf16
  return %narrow : bf16
}

// A store of something else, in a loop behind the load; of bits; memory whose address goes away.
// CHECK-LABEL: func.func @memory_unknown
// CHECK-NOT: tp.short_nans
func.func @memory_unknown(%x: f32, %b: i32, %n: index, %out: !llvm.ptr) -> (bf16, bf16) {
  %size = arith.constant 64 : i64
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %m = llvm.alloca %size x i8 : (i64) -> !llvm.ptr
  %k = llvm.alloca %size x i8 : (i64) -> !llvm.ptr
  %l = llvm.alloca %size x i8 : (i64) -> !llvm.ptr
  scf.for %i = %c0 to %n step %c1 {
    %y = llvm.load %m : !llvm.ptr -> f32
    %narrow = arith.truncf %y : f32 to bf16
    llvm.store %narrow, %out : bf16, !llvm.ptr
    llvm.store %x, %m : f32, !llvm.ptr
  }
  llvm.store %b, %k : i32, !llvm.ptr
  %u = llvm.load %k : !llvm.ptr -> f32
  %v = arith.truncf %u : f32 to bf16
  llvm.store %l, %out : !llvm.ptr, !llvm.ptr
  %w = llvm.load %l : !llvm.ptr -> f32
  %z = arith.truncf %w : f32 to bf16
  return %v, %z : bf16, bf16
}
