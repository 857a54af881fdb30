//! Random operations, one sequence on both engines: the same answers, and the same rows in the end.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::testing::on_both;

#[derive(Clone, Debug)]
enum Action {
    /// Queued together, so that they share commits.
    Burst(Vec<Vec<Step>>),
    Alone(Vec<Step>),
    Lease(&'static str, usize, i64, u32),
    Done(Vec<usize>, usize),
    Retry(Vec<usize>, usize, i64),
    Extend(Vec<usize>, usize, i64),
}

const OWNERS: [&str; 2] = ["one", "two"];
const ITEMS: [&str; 4] = ["i", "j", "k", "l"];

fn step() -> impl Strategy<Value = Step> {
    let key = || prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        3 => key().prop_map(Get),
        4 => (key(), 0..9i64).prop_map(|(k, v)| Put(k, v)),
        2 => (key(), 0..9i64).prop_map(|(k, v)| Add(k, v)),
        1 => (key(), 0..9i64).prop_map(|(k, v)| AddAndSwallow(k, v)),
        3 => key().prop_map(Bump),
        3 => (prop::sample::select(vec!["mail", "push"]), prop::sample::select(ITEMS.to_vec()), 0..60i64)
            .prop_map(|(queue, id, due)| Enqueue(queue, id.to_owned(), due)),
        1 => Just(Position),
        1 => (1..4i64).prop_map(room),
        1 => Just(Fail),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..5)
}

fn action() -> impl Strategy<Value = Action> {
    let owner = || 0..OWNERS.len();
    let items = || prop::collection::vec(0..ITEMS.len(), 0..4);
    prop_oneof![
        4 => prop::collection::vec(steps(), 1..8).prop_map(Action::Burst),
        2 => steps().prop_map(Action::Alone),
        3 => (prop::sample::select(vec!["mail", "push"]), owner(), 0..60i64, 0..4u32)
            .prop_map(|(queue, owner, now, limit)| Action::Lease(queue, owner, now, limit)),
        1 => (items(), owner()).prop_map(|(items, owner)| Action::Done(items, owner)),
        1 => (items(), owner(), 0..60i64).prop_map(|(items, owner, at)| Action::Retry(items, owner, at)),
        1 => (items(), owner(), 0..60i64).prop_map(|(items, owner, at)| Action::Extend(items, owner, at)),
    ]
}

/// What the engines must agree on: not the texts of errors, and not the positions, which may have other holes.
fn outcome(steps: &[Step], answer: Result<Seen>) -> String {
    match answer {
        Ok(seen) => {
            let seen = steps.iter().zip(seen).filter(|(step, _)| !matches!(step, Position));
            format!("{:?}", seen.map(|(_, seen)| seen).collect::<Vec<_>>())
        }
        Err(Error::Conflict(_)) => "conflict".into(),
        Err(Error::Sql { stmt, .. }) => format!("{stmt} failed"),
        Err(Error::Internal(why)) => why,
        Err(other) => panic!("{other}"),
    }
}

impl Store {
    async fn act(&self, action: &Action) -> String {
        let items = |of: &[usize]| of.iter().map(|i| ITEMS[*i].to_owned()).collect();
        match action {
            Action::Burst(operations) => {
                let answers = join_all(operations.iter().map(|steps| self.run(1, steps.as_slice()))).await;
                let outcomes = operations.iter().zip(answers).map(|(steps, answer)| outcome(steps, answer));
                outcomes.collect::<Vec<_>>().join("; ")
            }
            Action::Alone(steps) => outcome(steps, self.run(0, steps.as_slice()).await),
            Action::Lease(queue, owner, now, limit) => {
                format!("{:?}", self.lease(queue, OWNERS[*owner], *now, 20, *limit).await.expect("leases"))
            }
            Action::Done(ids, owner) => format!("{:?}", self.done(items(ids), OWNERS[*owner]).await.expect("writes")),
            Action::Retry(ids, owner, at) => {
                format!("{:?}", self.retry(items(ids), OWNERS[*owner], *at).await.expect("writes"))
            }
            Action::Extend(ids, owner, at) => {
                format!("{:?}", self.extend(items(ids), OWNERS[*owner], *at).await.expect("writes"))
            }
        }
    }

    /// The wakes that the sink was told of, in order.
    fn woken(&self) -> Vec<Wake> {
        let mut wakes: Vec<Wake> = self.sink.take().into_iter().flat_map(|commit| commit.wakes).collect();
        // How operations are cut into batches decides how often a wake is repeated.
        wakes.sort();
        wakes.dedup();
        wakes
    }
}

struct Clear;

impl Op for Clear {
    const NAME: &'static str = "test_clear";
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.execute(DROP_ALL, &[]).await?;
        tx.execute(DROP_OUTBOX, &[]).await.map(|_| ())
    }
}

struct Everything;

impl Query for Everything {
    const NAME: &'static str = "test_everything";
    type Out = (Vec<crate::tx::Row>, Vec<crate::tx::Row>);

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        Ok((tx.query(ALL_KV, &[]).await?, tx.query(ALL_OUTBOX, &[]).await?))
    }
}

#[test]
fn both_engines_do_the_same() {
    on_both(|sqlite, postgres| async {
        let (sqlite, postgres) = (sqlite.prepared().await, postgres.prepared().await);
        let runtime = tokio::runtime::Handle::current();
        let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
        let case = |actions: Vec<Action>| {
            runtime.block_on(async {
                for store in [&sqlite, &postgres] {
                    store.write(Clear).await.expect("clears");
                    store.sink.take();
                }
                for action in &actions {
                    let (a, b) = join(sqlite.act(action), postgres.act(action)).await;
                    prop_assert_eq!(a, b, "{:?}", action);
                    prop_assert_eq!(sqlite.woken(), postgres.woken(), "{:?}", action);
                }
                let (a, b) = join(sqlite.read(Everything), postgres.read(Everything)).await;
                prop_assert_eq!(a.expect("reads"), b.expect("reads"));
                Ok(())
            })
        };
        let verdict = tokio::task::block_in_place(|| runner.run(&prop::collection::vec(action(), 1..12), case));
        verdict.unwrap_or_else(|failure| panic!("{failure}"));
    });
}
