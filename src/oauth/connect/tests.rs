//! Its parts with each other, over HTTP.

mod callback;
mod existing;
mod real;
mod secrecy;
mod tickets;
mod world;

use self::world::{Browsing, World, id_in};
