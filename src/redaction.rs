//! What is masked, and how: secrets are searched by value, in every encoding they could come back in.
