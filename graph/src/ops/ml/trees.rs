//! Ensembles of decision trees: TreeEnsembleClassifier, TreeEnsembleRegressor, TreeEnsemble.

mod classify;
mod ensemble;
mod grow;
mod numbered;
mod regress;
mod walk;

pub(super) use self::classify::TreeEnsembleClassifier;
pub(super) use self::regress::{TreeEnsemble, TreeEnsembleRegressor};
