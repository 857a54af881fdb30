//! What goes into a column comes out of it, one by one and in lists.

use super::*;

struct Insert(Vec<Vec<Value>>);

impl Op for Insert {
    const NAME: &'static str = "test_insert";
    type Out = (u64, u64);

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let wide = tx.insert_rows(WIDE, &self.0).await?;
        let again = [vec![Value::from("bulk"), Value::from(1)], vec![Value::from("bulk"), Value::from(2)]];
        Ok((wide, tx.insert_rows(KV, &again).await?))
    }
}

type Wide = (Option<i64>, Option<String>, Option<Vec<u8>>);

struct AllWide;

impl Query for AllWide {
    const NAME: &'static str = "test_all_wide";
    type Out = Vec<Wide>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let mut rows: Vec<Wide> = tx
            .query(ALL_WIDE, &[])
            .await?
            .into_iter()
            .map(|mut row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .collect::<Result<_>>()?;
        rows.sort(); // where NULL stands is a matter of the dialect
        Ok(rows)
    }
}

struct Lists {
    ints: Vec<i64>,
    texts: Vec<String>,
    blobs: Vec<Vec<u8>>,
}

impl Query for Lists {
    const NAME: &'static str = "test_lists";
    type Out = (Vec<i64>, Vec<String>, Vec<Vec<u8>>, Vec<i64>);

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        async fn column<R: Reads, T: crate::tx::FromCell>(
            tx: &mut R,
            stmt: crate::tx::Stmt,
            args: &[Value],
        ) -> Result<Vec<T>> {
            tx.query(stmt, args).await?.into_iter().map(|mut row| row.get(0)).collect()
        }
        Ok((
            column(tx, BY_INTS, args![self.ints.clone(), -1]).await?,
            column(tx, BY_TEXTS, args![self.texts.clone()]).await?,
            column(tx, BY_BLOBS, args![self.blobs.clone()]).await?,
            column(tx, NOT_INTS, args![self.ints.clone()]).await?,
        ))
    }
}

/// From, to, and the newest so many.
struct Newest(Vec<[i64; 3]>);

impl Query for Newest {
    const NAME: &'static str = "test_newest";
    const SINGLE: bool = true;
    type Out = Vec<Vec<(i64, String)>>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows: Vec<Vec<Value>> = self.0.iter().map(|row| row.map(Value::from).to_vec()).collect();
        let answers = tx.query_each(NEWEST_WIDE, &rows).await?;
        let read = |rows: Vec<crate::tx::Row>| rows.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect();
        answers.into_iter().map(read).collect()
    }
}

struct Types;

impl Query for Types {
    const NAME: &'static str = "test_types";
    const SINGLE: bool = true;
    type Out = (bool, i64, Option<i64>, String, Vec<u8>);

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let mut row = tx.query_one(TYPES, args!["t"]).await?;
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    }
}

struct Likes(&'static str);

impl Query for Likes {
    const NAME: &'static str = "test_likes";
    const SINGLE: bool = true;
    type Out = i64;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<i64> {
        tx.query_one(LIKES, args![self.0]).await?.get(0)
    }
}

struct Fraction;

impl Query for Fraction {
    const NAME: &'static str = "test_fraction";
    type Out = ();

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<()> {
        tx.query(FRACTION, &[]).await.map(|_| ())
    }
}

#[test]
fn many_rows_go_in_at_once() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        assert_eq!(store.write(Insert(Vec::new())).await.expect("nothing to do"), (0, 1));
        let mut rows: Vec<Wide> = vec![
            (Some(1), Some("one".into()), Some(vec![0, 255])),
            (None, None, None),
            (Some(i64::MIN), Some(String::new()), Some(Vec::new())),
            (None, Some("{\"a\": [\"b\", NULL]}".into()), None),
        ];
        rows.extend((0..1000).map(|i| (Some(i), Some(format!("row {i}")), None)));
        let values = rows.iter().map(|(i, t, b)| vec![(*i).into(), t.clone().into(), b.clone().into()]).collect();
        assert_eq!(store.write(Insert(values)).await.expect("written"), (1004, 0));
        rows.sort();
        assert_eq!(store.read(AllWide).await.expect("reads"), rows);

        let short = vec![vec![Value::from(1), Value::from("a row without its blob")]];
        assert!(matches!(store.write(Insert(short)).await, Err(Error::Sql { .. })));
    });
}

#[test]
fn lists_are_looked_up_and_may_be_empty() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        let wide = |i: i64| vec![i.into(), format!("t{i}").into(), vec![0, i as u8].into()];
        store.write(Insert((0..10).map(wide).collect())).await.expect("written");
        let texts = ["t2", "t9", "t77", "t2", "'"].map(String::from).to_vec();
        let some = Lists { ints: vec![7, 3, 3, 99], texts, blobs: vec![vec![0, 4], vec![], vec![0, 1]] };
        let (ints, texts, blobs, others) = store.read(some).await.expect("reads");
        assert_eq!(ints, [3, 7]);
        assert_eq!(texts, ["t2", "t9"]);
        assert_eq!(blobs, [[0, 1], [0, 4]]);
        assert_eq!(others, [0, 1, 2, 4, 5, 6, 8, 9]);
        let none = Lists { ints: Vec::new(), texts: Vec::new(), blobs: Vec::new() };
        let (ints, texts, blobs, others) = store.read(none).await.expect("reads");
        assert_eq!((ints.len(), texts.len(), blobs.len(), others.len()), (0, 0, 0, 10));
    });
}

#[test]
fn one_question_is_asked_of_many_rows_at_once() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        let wide = |i: i64| vec![i.into(), format!("t{i}").into(), Value::Blob(None)];
        store.write(Insert((0..100).map(wide).collect())).await.expect("written");
        let answers = store.read(Newest(vec![[10, 20, 3], [50, 50, 9], [98, 200, 9], [10, 12, 1], [10, 20, 3]])).await;
        let answers = answers.expect("reads");
        let numbers: Vec<Vec<i64>> = answers.iter().map(|rows| rows.iter().map(|(i, _)| *i).collect()).collect();
        assert_eq!(numbers, [vec![19, 18, 17], vec![], vec![99, 98], vec![11], vec![19, 18, 17]]);
        assert_eq!(answers[3][0].1, "t11");
        let many = store.read(Newest((0..1_000).map(|n| [n % 100, 100, 2]).collect())).await.expect("reads");
        assert!(many.iter().zip(0..).all(|(rows, n)| rows.len() == if n % 100 == 99 { 1 } else { 2 }));
        assert_eq!(store.work()["test_newest"].statements, 2);
        assert!(store.read(Newest(Vec::new())).await.expect("asks nothing").is_empty());
    });
}

#[test]
fn columns_are_numbers_texts_and_blobs() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        let rows =
            vec![vec![1.into(), "t".into(), vec![1u8, 2].into()], vec![2.into(), "t".into(), vec![1u8, 2].into()]];
        store.write(Insert(rows)).await.expect("written");
        let row = store.read(Types).await.expect("reads");
        assert_eq!(row, (true, 2, None, "xt".to_owned(), vec![1, 2]));
        assert!(matches!(store.read(Fraction).await, Err(Error::Sql { .. })), "a fraction is no number of ours");
    });
}

#[test]
fn texts_heed_case_and_hold_no_nul() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        store.run(1, [Put("Aa", 1), Put("ab", 1)]).await.expect("written");
        assert_eq!(store.read(Likes("a%")).await.expect("reads"), 1);
        let answers =
            join_all([store.run(1, [Put("a", 1)]), store.run(1, [Put("x\0y", 1)]), store.run(1, [Put("b", 1)])]);
        let answers = answers.await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        assert!(matches!(answers[1], Err(Error::Sql { .. })), "{answers:?}");
    });
}
