//! Counters: one set a worker, added up when they are read.
