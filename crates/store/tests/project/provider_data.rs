//! What providers want back is kept with its part, for the model that said it alone, and nobody else sees it.

use iris_protocol::{FinishReason, ModelRef, PartId, RunStatus, ToolState};
use iris_store::project::{DataOwner, FinishRun, ForgetProviderData, ProviderData, RecordStep};

use crate::fixture::{
    Fixture, accept, call, end_of_step, finish, run_id, session_id, start, step, text,
};

/// Numbers, escapes and spaces that no parser would write so.
const ODD: &str = r#"{"signature": "\u00e9\/",  "n":1.50e1}"#;

fn model(provider: &str) -> ModelRef {
    ModelRef { provider_id: provider.into(), model_id: "m".into() }
}

fn owner(provider: &str) -> DataOwner {
    DataOwner { model: model(provider), key_print: "p".into() }
}

fn data(part: u128, provider: &str, json: &str) -> ProviderData {
    let (part_id, kind) = (PartId::from_bits(part), "k".into());
    ProviderData { part_id, owner: owner(provider), kind, json: json.into() }
}

async fn kept(fixture: &Fixture, run: u128, provider: &'static str) -> Vec<ProviderData> {
    let reader = fixture.database().reader();
    let asked = reader.asked_about(session_id(), run_id(run), Some(model(provider)));
    asked.await.unwrap().provider_data
}

#[tokio::test]
async fn it_comes_back_byte_for_byte_to_its_model_and_to_nobody_else_until_it_is_forgotten() {
    let fixture = Fixture::with_run().await;
    let parts = vec![text(1, "one"), call(1, ToolState::Completed)];
    let first = data(2_000_001, "anthropic", ODD);
    fixture
        .write(RecordStep { provider_data: vec![first.clone()], ..step(1, 0, parts) })
        .await
        .unwrap();
    let second = data(2_000_002, "openai", "[]");
    let end = FinishRun {
        parts: vec![text(2, "two")],
        step: Some(end_of_step(1, 1, FinishReason::Stop)),
        provider_data: vec![second.clone()],
        ..finish(1, RunStatus::Completed, FinishReason::Stop)
    };
    fixture.write(end).await.unwrap();

    assert_eq!(kept(&fixture, 1, "anthropic").await, std::slice::from_ref(&first));
    assert_eq!(kept(&fixture, 1, "openai").await, [second]);
    assert_eq!(kept(&fixture, 1, "google").await, []);
    assert!(!format!("{first:?}").contains("signature"));
    let answer = serde_json::to_string(&fixture.answer(1).await).unwrap();
    assert!(!answer.contains("signature"), "{answer}");

    // The run after it has it too.
    fixture.write(accept(2)).await.unwrap();
    fixture.write(start(2)).await.unwrap();
    assert_eq!(kept(&fixture, 2, "anthropic").await, std::slice::from_ref(&first));

    let forget = |owner| ForgetProviderData { session_id: session_id(), owner };
    let other_key = DataOwner { key_print: "q".into(), ..owner("anthropic") };
    fixture.write(forget(other_key)).await.unwrap();
    fixture.write(forget(owner("openai"))).await.unwrap();
    assert_eq!(kept(&fixture, 2, "openai").await, []);
    assert_eq!(kept(&fixture, 2, "anthropic").await, [first]);
}

#[tokio::test]
async fn it_must_belong_to_a_part_that_there_is() {
    let fixture = Fixture::with_run().await;
    let stray = RecordStep {
        provider_data: vec![data(9, "openai", "{}")],
        ..step(1, 0, vec![text(1, "one")])
    };
    assert!(fixture.write(stray).await.is_err());
    let broken = RecordStep {
        provider_data: vec![data(2_000_001, "openai", "{")],
        ..step(1, 0, vec![text(1, "one")])
    };
    assert!(fixture.write(broken).await.is_err());
    assert_eq!(kept(&fixture, 1, "openai").await, []);
}
