"""One access for neighbours in memory, where a lane has several of them."""
