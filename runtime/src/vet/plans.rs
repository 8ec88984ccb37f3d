//! Vets the plans that a graph gets for shapes that requests bring.
//!
//! Which shapes those are is known only when they come, so the child that vetted the graph cannot have made
//! their plans. Another one makes each before this process does, under the same limits.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tidegate_graph::{Graph, GraphError, GraphLimits, PlanKey, VetPlan};
use tidegate_inference::Digest;

use super::{PlanTask, VetError, Vetter};
use crate::module::sha256;

/// Plans of one graph that are remembered as harmless.
const REMEMBERED_MAX: usize = 1024;

/// Vets the plans of one graph, one at a time: what they take at once is what one may take.
pub(crate) struct PlanVetter {
    vetter: Arc<Vetter>,
    onnx: Bytes,
    limits: GraphLimits,
    harmless: Mutex<HashSet<Digest>>,
}

impl fmt::Debug for PlanVetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanVetter").finish_non_exhaustive()
    }
}

impl PlanVetter {
    /// Has the plans of a graph vetted that was read from `onnx` with these limits, where requests choose
    /// any.
    pub(crate) fn watch(
        vetter: &Arc<Vetter>,
        graph: Graph,
        onnx: Bytes,
        limits: GraphLimits,
    ) -> Graph {
        if !graph.has_free_axes() {
            return graph;
        }
        graph.vetting_plans(Arc::new(Self {
            vetter: Arc::clone(vetter),
            onnx,
            limits,
            harmless: Mutex::default(),
        }))
    }
}

impl VetPlan for PlanVetter {
    fn vet(&self, key: &PlanKey) -> Result<(), GraphError> {
        let mut harmless = self.harmless.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = PlanTask::of(key);
        let values: Vec<&[u8]> = key
            .values
            .iter()
            .map(|(_, value)| &value.data()[..])
            .collect();
        let name = sha256(&[format!("{plan:?}").as_bytes(), &values.concat()].concat());
        if harmless.contains(&name) {
            return Ok(());
        }
        match self.vetter.vet_plan(&self.onnx, self.limits, plan, &values) {
            // What it refuses by itself it got through, and is refused here for the same reason.
            Ok(()) | Err(VetError::Refused { .. }) => {
                if harmless.len() >= REMEMBERED_MAX {
                    harmless.clear();
                }
                harmless.insert(name);
                Ok(())
            }
            Err(error @ VetError::Start { .. }) => Err(GraphError::Thread {
                reason: error.to_string(),
            }),
            Err(error) => Err(GraphError::Prepare {
                reason: error.to_string(),
            }),
        }
    }
}
