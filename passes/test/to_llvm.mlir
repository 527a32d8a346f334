// Everything upstream becomes the llvm dialect; control flow becomes blocks.
// RUN: torchport opt %s -p to-llvm | filecheck %s

// CHECK-LABEL: llvm.func @sum(%arg0: !llvm.ptr, %arg1: i64) -> f32
// CHECK: llvm.cond_br
// CHECK: llvm.load %{{.*}} : !llvm.ptr -> vector<4xf32>
// CHECK: llvm.fadd %{{.*}}, %{{.*}} : vector<4xf32>
// CHECK: llvm.br
// CHECK: llvm.extractelement
// CHECK: llvm.intr.floor(%{{.*}}) : (f32) -> f32
// CHECK-NOT: {{scf|arith|vector|math|func}}.
func.func @sum(%from: !llvm.ptr, %count: i64) -> f32 {
  %zero = arith.constant dense<0.0> : vector<4xf32>
  %first = arith.constant 0 : i64
  %step = arith.constant 4 : i64
  %sums = scf.for %i = %first to %count step %step iter_args(%so_far = %zero) -> (vector<4xf32>) : i64 {
    %at = llvm.getelementptr %from[%i] : (!llvm.ptr, i64) -> !llvm.ptr, f32
    %x = llvm.load %at : !llvm.ptr -> vector<4xf32>
    %more = arith.addf %so_far, %x : vector<4xf32>
    scf.yield %more : vector<4xf32>
  }
  %one = vector.extract %sums[0] : f32 from vector<4xf32>
  %whole = math.floor %one : f32
  return %whole : f32
}
