"""Facts about values that hold without changing any IR: strides, masks, addresses, where a pointer comes from."""
