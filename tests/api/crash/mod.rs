//! Crash tests: controllers and scheduler are killed between any two of their writes, over and over,
//! while what they are to do goes on. The end is right, no pod was made twice and none is left.
//!
//! [`workloads`], [`batch`] and [`collection`] kill them inside this process at chosen writes ([`victims`]), beside an API server
//! with its store in memory ([`world`]); [`process`] kills the real server with its store on disk.
//! The pods run on nodes without machines. The order of kills comes from a seed that a failure
//! prints, `CRASH_SEED` sets it; what meets which kill depends on the machine's timing too.

mod batch;
mod collection;
mod process;
mod victims;
mod workloads;
pub mod world;
