// Two buffers, of which only one is needed at a time, share a place where both together are too large; lanes wait before
// it is used again. With room for both, nothing changes.
// RUN: torchport opt -p 'pack-scratch{limit=40}' %s | filecheck %s
// RUN: torchport opt -p 'pack-scratch{limit=64}' %s | filecheck %s --check-prefix ROOM

// Where the smallest element is a word, as in WGSL, eight bytes take as much as eight words.
// RUN: torchport opt -p 'pack-scratch{limit=24,word=4}' %s | filecheck %s --check-prefix WORD

// WORD-LABEL: @bytes
// WORD-SAME: tp.scratch_bytes = 32
// CHECK: tp.scratch_bytes = 32
// CHECK-COUNT-2: "tp.scratch"() {count = 8 : i64, element = f32, offset = 0 : i64}
// CHECK: "tp.scratch_load"
// CHECK-NEXT: "tp.barrier"() {memory = "scratchpad"}
// CHECK-NEXT: "tp.scratch_store"
// ROOM-NOT: offset
func.func @kernel(%lane: i32, %x: f32) {
  %a = "tp.scratch"() {count = 8 : i64, element = f32} : () -> !llvm.ptr
  %b = "tp.scratch"() {count = 8 : i64, element = f32} : () -> !llvm.ptr
  "tp.scratch_store"(%x, %a, %lane) : (f32, !llvm.ptr, i32) -> ()
  "tp.barrier"() {memory = "scratchpad"} : () -> ()
  %y = "tp.scratch_load"(%a, %lane) : (!llvm.ptr, i32) -> f32
  "tp.scratch_store"(%y, %b, %lane) : (f32, !llvm.ptr, i32) -> ()
  return
}
func.func @bytes(%lane: i32, %x: i8) {
  %a = "tp.scratch"() {count = 8 : i64, element = i8} : () -> !llvm.ptr
  "tp.scratch_store"(%x, %a, %lane) : (i8, !llvm.ptr, i32) -> ()
  return
}
