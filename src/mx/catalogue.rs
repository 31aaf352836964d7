//! MX's operations and how a request line is matched to one.
