"""torchport's own operations, used between its passes only. None is registered with MLIR: all are in generic form.

* ``tp.buffer {count, element} -> !llvm.ptr``: memory of one program instance, row-major.
* ``tp.write value, buffer`` and ``tp.read buffer -> tensor``: a whole tensor into and out of a buffer.
* ``tp.nest ({...}) {shape, axis}``: operations that become one loop nest; ``tp.yield`` ends it.
* ``tp.scan``, ``tp.gather``, ``tp.histogram``, ``tp.join``, ``tp.split``, ``tp.cat``, ``tp.dot``: from buffers to
  buffers, the tensor types as ``operand_types`` and ``result_types``.
* ``tp.check pointers, mask {site, access, bytes, roots} -> mask``: the lanes in which the sanitizer allows an access.
* ``tp.extern {symbol}``: a libdevice function on scalars or vectors. ``tp.fp_to_fp {rounding}``: a float conversion.

Of a lane, what ``distribute`` leaves:

* ``tp.lane -> i32``: the number of the lane in its group. ``tp.barrier {memory}``: all lanes of the group wait, writes
  of ``scratchpad`` or ``all`` memory are seen.
* ``tp.scratch {count, element} -> !llvm.ptr``: an array in scratchpad memory; ``tp.scratch_load array, index``,
  ``tp.scratch_store value, array, index, mask`` and ``tp.scratch_count array, index, mask`` (an atomic addition of 1).
* ``tp.assert condition {message}`` ends a lane's memory accesses. ``tp.print index, mask, value``: one element.
* ``tt.load``, ``tt.store``, ``tt.atomic_*`` and ``tt.addptr`` on scalars; atomics say ``masked`` and their ``element``.
"""
