//! One access record a request, written once, off the request's path.
