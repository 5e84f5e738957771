//! The claims of the paper, each checked on any models.
//!
//! A claim about models is a [`Claim`]: it measures one model at a time, and joins the measurements to a report, which
//! serializes to JSON and renders as a [`Page`](bagssl_eval::report::Page). [`Cooccurrence`] needs no
//! model.
//!
//! ```no_run
//! use bagssl::claims::{Claim, Convergence};
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
mod aggregation;
mod convergence;
mod locality;
mod cooccurrence;
mod compare;

pub use aggregation::{
    AccuracyWithInterval, AggregateAccuracy, Aggregation, AggregationReport, ModelAggregation, PatchLayout,
};
pub use claim::Claim;
pub use compare::{Compare, CompareReport, Difference, MeasuredAccuracy, MethodAccuracy, MethodOrigin, ModelHits};
pub use convergence::{Convergence, ConvergenceReport, ModelConvergence};
pub use cooccurrence::{Cooccurrence, CooccurrenceReport, WorldResult};
pub use locality::{Locality, LocalityReport, ModelLocality};
pub use wording::NO_PROJECTOR;
