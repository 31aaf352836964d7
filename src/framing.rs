//! What a well-formed HTTP/1.1 message looks like on the wire: pure checks without I/O.
//! They may only refuse: they never repair or change a byte.
