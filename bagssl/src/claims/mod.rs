//! The claims of the paper, each checked on any models.
//!
//! A claim about models is a [`Claim`]: it measures one model at a time, and joins the measurements to a report, which
//! serializes to JSON and renders as a [`Page`](bagssl_eval::report::Page). [`Cooccurrence`](cooccurrence::Cooccurrence) needs no
//! model.
//!
//! ```no_run
//! use bagssl::claims::{Claim, convergence::Convergence};
//! use bagssl::{Encoder, EvalOptions, Splits};
//!
//! let (a, b) = (Encoder::load("a.safetensors")?, Encoder::load("b.safetensors")?);
//! let splits = Splits::open("photos")?;
//! let report = Convergence::default().check(&[a.model("a"), b.model("b")], &splits, &EvalOptions::default())?;
//! println!("{}", report.page().text());
//! # Ok::<(), bagssl::Error>(())
//! ```

mod claim;
mod subject;
mod wording;
pub mod aggregation;
pub mod convergence;
pub mod locality;
pub mod cooccurrence;
pub mod compare;

pub use claim::Claim;
pub use wording::NO_PROJECTOR;
