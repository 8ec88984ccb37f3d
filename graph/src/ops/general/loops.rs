//! Repeats a graph until a condition or a count ends it: `Loop`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{GraphProto, NodeProto};
use tract_onnx::tract_hir::internal::*;

use super::body::Body;
use super::kernel::{Facts, Kernel, Unknown, Values, check_bytes, slice};
use super::own::operator_closing_on;
use crate::scope;

/// Most rounds of a loop. Decoding a text, the longest loop that models have, takes some thousand.
const ROUNDS_MAX: usize = 1 << 14;

const COUNT: usize = 0;
const CONDITION: usize = 1;
const FIRST_CARRIED: usize = 2;

#[derive(Debug)]
struct Loop {
    body: Body,
    /// Values that each round hands to the next.
    carried: usize,
    /// Values that each round adds to a list.
    collected: usize,
    /// Values of the graph around, alike in each round.
    closures: usize,
}

pub(super) fn repeat(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let graph: &GraphProto = node.get_attr("body")?;
    let (body, closures) = Body::parse(context, graph)?;
    let carried = node.input.len().saturating_sub(FIRST_CARRIED);
    ensure!(
        body.inputs()? == FIRST_CARRIED + carried + closures.len(),
        "the body takes {} values, {carried} are carried",
        body.inputs()?
    );
    let collected = body
        .outputs()?
        .checked_sub(1 + carried)
        .context("the body gives fewer values than are carried")?;
    let kernel = Loop {
        body,
        carried,
        collected,
        closures: closures.len(),
    };
    operator_closing_on(context, node, "Loop", kernel, closures)
}

impl Loop {
    fn inner_facts(
        &self,
        inputs: &Facts<'_>,
        carried: &[TypedFact],
    ) -> TractResult<TVec<TypedFact>> {
        let mut facts = vec![
            i64::datum_type().scalar_fact(),
            bool::datum_type().scalar_fact(),
        ];
        facts[1].konst = Some(rctensor0(true));
        facts.extend(carried.iter().map(TypedFact::without_value));
        for closure in 0..self.closures {
            let fact = inputs.need(FIRST_CARRIED + self.carried + closure)?;
            facts.push(fact.clone());
        }
        self.body.facts(&facts)
    }

    /// How many rounds there will be, if that can be told beforehand.
    fn rounds(&self, inputs: &Facts<'_>, condition: &TypedFact) -> TractResult<Option<usize>> {
        let Some(count) = inputs.integers(COUNT)? else {
            return Ok(None);
        };
        let is_true = |fact: &TypedFact| match &fact.konst {
            Some(value) => slice::<bool>(value).is_ok_and(|value| value == [true]),
            None => false,
        };
        let starts = inputs.get(CONDITION).is_none_or(is_true);
        if !starts || !is_true(condition) {
            return Ok(None);
        }
        let &[count] = &*count else {
            bail!("the number of rounds is not a single number");
        };
        let rounds = usize::try_from(count.max(0))?;
        check_rounds(rounds)?;
        Ok(Some(rounds))
    }
}

fn check_rounds(rounds: usize) -> TractResult<()> {
    ensure!(
        rounds <= ROUNDS_MAX,
        "a loop of {rounds} rounds, at most {ROUNDS_MAX} are allowed"
    );
    Ok(())
}

impl Kernel for Loop {
    fn is_bounded(&self) -> bool {
        true
    }

    fn facts(&self, inputs: &Facts<'_>, unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        ensure!(
            inputs.get(COUNT).is_some() || inputs.get(CONDITION).is_some(),
            "neither a count nor a condition ends the loop"
        );
        let mut carried = (0..self.carried)
            .map(|place| {
                inputs
                    .need(FIRST_CARRIED + place)
                    .map(TypedFact::without_value)
            })
            .collect::<TractResult<Vec<_>>>()?;
        // An extent that a round changes is unknown, and may make others so in the next.
        let mut numbers = 1..;
        let mut fresh = || unknown.extent(numbers.next().unwrap_or(usize::MAX));
        let mut outputs = self.inner_facts(inputs, &carried)?;
        let mut settled = false;
        while !settled {
            settled = true;
            for (carried, next) in carried.iter_mut().zip(&outputs[1..]) {
                ensure!(
                    carried.datum_type == next.datum_type && carried.rank() == next.rank(),
                    "a carried value changes its type or its number of axes"
                );
                let mut shape = carried.shape.to_tvec();
                for (extent, next) in shape.iter_mut().zip(next.shape.iter()) {
                    if extent != next && extent.to_usize().is_ok() {
                        *extent = fresh();
                        settled = false;
                    }
                }
                *carried = carried.datum_type.fact(&*shape);
            }
            if !settled {
                outputs = self.inner_facts(inputs, &carried)?;
            }
        }
        let rounds = match self.rounds(inputs, &outputs[0])? {
            Some(rounds) => rounds.to_dim(),
            None => unknown.extent(0),
        };
        let mut facts: TVec<TypedFact> = carried.into();
        for output in &outputs[1 + self.carried..] {
            let mut shape = tvec![rounds.clone()];
            shape.extend(output.shape.iter().map(|extent| match extent.to_usize() {
                Ok(extent) => extent.to_dim(),
                Err(_) => fresh(),
            }));
            facts.push(output.datum_type.fact(&*shape));
        }
        Ok(facts)
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let wanted = match inputs.get(COUNT) {
            Some(_) => Some(usize::try_from(inputs.integer(COUNT)?.max(0))?),
            None => None,
        };
        let mut goes_on = match inputs.get(CONDITION) {
            Some(condition) => is_set(condition)?,
            None => true,
        };
        let value = |place: usize| inputs.need(place).map(|input| input.clone().into_tvalue());
        let mut carried = (0..self.carried)
            .map(|place| value(FIRST_CARRIED + place))
            .collect::<TractResult<TVec<TValue>>>()?;
        let closures = (0..self.closures)
            .map(|place| value(FIRST_CARRIED + self.carried + place))
            .collect::<TractResult<TVec<TValue>>>()?;
        let mut collected: Vec<Vec<Tensor>> = (0..self.collected).map(|_| vec![]).collect();
        let mut bytes = 0_usize;
        let mut round = 0;
        while goes_on && wanted.is_none_or(|wanted| round < wanted) {
            scope::check()?;
            check_rounds(round + 1)?;
            let mut given: TVec<TValue> = tvec![
                tensor0(i64::try_from(round)?).into_tvalue(),
                tensor0(true).into_tvalue(),
            ];
            given.extend(carried);
            given.extend(closures.iter().cloned());
            let mut outputs = self
                .body
                .run(given, FIRST_CARRIED + self.carried)?
                .into_iter();
            goes_on = is_set(&outputs.next().context("the body gives no condition")?)?;
            carried = outputs
                .by_ref()
                .take(self.carried)
                .map(Tensor::into_tvalue)
                .collect();
            for (list, output) in collected.iter_mut().zip(outputs) {
                bytes = bytes.saturating_add(output.volume() * output.datum_type().size_of());
                check_bytes(&[bytes], 1)?;
                list.push(output);
            }
            round += 1;
        }
        let mut outputs: TVec<Tensor> = carried.into_iter().map(TValue::into_tensor).collect();
        if round == 0 && self.collected > 0 {
            outputs.extend(self.nothing(inputs)?);
            return Ok(outputs);
        }
        for list in collected {
            ensure!(
                list.windows(2)
                    .all(|pair| pair[0].shape() == pair[1].shape()),
                "the rounds give values of different shapes"
            );
            outputs.push(Tensor::stack_tensors(0, &stacked(list)?)?);
        }
        Ok(outputs)
    }
}

impl Loop {
    /// The lists of a loop without rounds; an extent that only a round could tell is zero.
    fn nothing(&self, inputs: &Values<'_>) -> TractResult<Vec<Tensor>> {
        let facts = (0..inputs.len())
            .map(|place| {
                let value = inputs
                    .get(place)
                    .map(|input| input.clone().into_arc_tensor());
                value.map(TypedFact::try_from).transpose()
            })
            .collect::<TractResult<Vec<_>>>()?;
        let facts = Facts::new(facts.iter().map(Option::as_ref).collect());
        let carried = (0..self.carried)
            .map(|place| {
                facts
                    .need(FIRST_CARRIED + place)
                    .map(TypedFact::without_value)
            })
            .collect::<TractResult<Vec<_>>>()?;
        let outputs = self.inner_facts(&facts, &carried)?;
        outputs[1 + self.carried..]
            .iter()
            .map(|fact| {
                let mut shape: TVec<usize> = tvec![0];
                shape.extend(
                    fact.shape
                        .iter()
                        .map(|extent| extent.to_usize().unwrap_or(0)),
                );
                Tensor::zero_dt(fact.datum_type, &shape)
            })
            .collect()
    }
}

fn is_set(condition: &Tensor) -> TractResult<bool> {
    match slice::<bool>(condition)? {
        [condition] => Ok(*condition),
        _ => bail!("a condition is not a single boolean"),
    }
}

/// The values of the rounds, each with an axis in front for its round.
fn stacked(list: Vec<Tensor>) -> TractResult<Vec<Tensor>> {
    list.into_iter()
        .map(|mut value| {
            value.insert_axis(0)?;
            Ok(value)
        })
        .collect()
}
