//! What the kernel's packet filter is asked to do: [`Nft`] applies rules, each script as one
//! transaction; [`table_comment`] looks at what is there without starting a program;
//! [`conntrack`] forgets connections whose destination is gone.
//!
//! Everything works in the network namespace of the calling thread, and blocks it for
//! milliseconds: an async caller uses a blocking task.

pub mod conntrack;
mod netlink;
mod nft;
mod table;

pub use nft::{Error, Nft};
pub use table::{Family, table_comment};
