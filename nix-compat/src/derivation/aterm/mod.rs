//! The text of a `.drv` file, an ATerm: `Derive([outputs],[input drvs],[input srcs],platform,builder,[args],[env])`.

mod error;
mod parse;
pub(super) mod print;

pub use error::{ParseDerivationError, ParseDerivationReason};
pub use parse::TEXT_SIZE_MAX;
