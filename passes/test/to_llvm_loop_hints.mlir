// What a kernel says about a loop is the branch's own attribute, which LLVM's metadata is made from.
// RUN: torchport opt %s -p to-llvm | filecheck %s

// CHECK-LABEL: llvm.func @kernel
// CHECK: llvm.br ^{{.*}} {loop_annotation = #loop_annotation}
// CHECK-NOT: llvm.loop_annotation =
#licm = #llvm.loop_licm<disable = true, versioningDisable = true>
#hint = #llvm.loop_annotation<licm = #licm>
module {
  func.func @kernel(%x: !llvm.ptr, %n: i32) {
    %c0 = arith.constant 0 : i32
    %c1 = arith.constant 1 : i32
    scf.for %i = %c0 to %n step %c1 : i32 {
      llvm.store %i, %x : i32, !llvm.ptr
    } {llvm.loop_annotation = #hint}
    return
  }
}
