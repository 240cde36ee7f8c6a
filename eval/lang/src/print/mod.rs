//! Values as text: as `nix-instantiate --eval` prints them, as messages quote them, as a prompt shows them, as JSON and as XML.

mod ambiguous;
mod json;
mod pretty;
mod prompt;
mod xml;

pub use prompt::{PromptDepth, PromptStyle};
