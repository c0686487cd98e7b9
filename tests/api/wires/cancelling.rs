//! L13: a cancel at every point of an answer, on every wire. The provider is left, and to cancel again does
//! nothing.

use iris_protocol::{Budget, FinishReason, RunStatus, SessionBudgetSet, ToolState};
use iris_testkit::{Dialect, Gate, REPORTED, Reply, calls_of, moment, text_of};

use super::{Talk, patient, talks, talks_on};

/// A gate for each wire, at which its client has left, or the provider was asked.
struct Gates([(Dialect, Gate); 5]);

impl Gates {
    fn new() -> Self {
        Self(Dialect::ALL.map(|dialect| (dialect, Gate::default())))
    }

    fn of(&self, dialect: Dialect) -> &Gate {
        self.0.iter().find(|(of, _)| *of == dialect).map(|(_, gate)| gate).unwrap()
    }
}

/// Cancels twice; the second time there is nothing left to cancel once the run has ended.
async fn cancels(talk: &mut Talk, run: &iris_protocol::RunId) -> iris_protocol::Message {
    assert!(talk.ann.cancel().await);
    assert_eq!(talk.ann.run_ended(run).await, RunStatus::Cancelled, "{:?}", talk.dialect);
    assert!(!talk.ann.cancel().await, "{:?}: cancelled again", talk.dialect);
    let answer = talk.ann.answer(run).await;
    assert_eq!(answer.finish_reason, Some(FinishReason::Cancelled), "{:?}", talk.dialect);
    assert!(calls_of(&answer).iter().all(|call| call.state.is_final()));
    answer
}

#[tokio::test]
async fn l13_a_cancel_before_the_first_byte() {
    let (asked, left) = (Gates::new(), Gates::new());
    let (_app, talks) = talks(|dialect| {
        // The headers have come, nothing else.
        let silent = dialect.stream().wait(asked.of(dialect)).until_left(left.of(dialect));
        vec![silent, dialect.says("next")]
    })
    .await;
    for mut talk in talks {
        let run = talk.ann.send_message("go").await.run_id;
        asked.of(talk.dialect).reached().await;
        asked.of(talk.dialect).open();
        assert_eq!(text_of(&cancels(&mut talk, &run).await), "");
        left.of(talk.dialect).reached().await;
        assert_eq!(text_of(&talk.answer().await), "next", "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn l13_a_cancel_in_the_middle_of_a_text() {
    let left = Gates::new();
    let (app, talks) = talks(|dialect| {
        let half = dialect.answer().open_text(&["half"]).reply();
        vec![half.until_left(left.of(dialect)), dialect.says("next")]
    })
    .await;
    let root = app.admin().await;
    for mut talk in talks {
        talk.set_price(&root).await;
        let run = talk.ann.send_message("go").await.run_id;
        talk.ann.wait_for("message.text.delta").await;
        let answer = cancels(&mut talk, &run).await;
        assert_eq!(text_of(&answer), "half", "{:?}", talk.dialect);
        left.of(talk.dialect).reached().await;
        // It was used, though nobody knows how much in all.
        let (usage, used) = (answer.usage.unwrap(), talk.used().await);
        assert!(usage.incomplete && usage.cost_nano_usd.is_none(), "{usage:?}");
        let is_told = talk.dialect == Dialect::Messages;
        assert_eq!(usage.input_tokens == REPORTED.0, is_told, "{:?} {usage:?}", talk.dialect);
        assert_eq!((used.steps, used.unpriced_steps), (0, 1));
        assert_eq!(used.known_cost_nano_usd.unsigned_abs(), 1_000 * used.tokens());
        assert_eq!(text_of(&talk.answer().await), "next");
    }
}

#[tokio::test]
async fn l13_what_was_cancelled_is_counted_by_budgets() {
    let left = Gates::new();
    let (app, talks) = talks(|dialect| {
        let half = || dialect.answer().open_text(&["half"]).reply();
        vec![half().until_left(left.of(dialect)), dialect.says("never asked")]
    })
    .await;
    let root = app.admin().await;
    for (mut talk, of_money) in talks.into_iter().zip([true, false].into_iter().cycle()) {
        talk.set_price(&root).await;
        let budget = if of_money {
            Budget { cost_nano_usd: Some(2_000), ..Budget::default() }
        } else {
            Budget { tokens: Some(REPORTED.0), ..Budget::default() }
        };
        let session_id = talk.ann.session.clone();
        talk.ann.call(SessionBudgetSet { session_id, budget }).await.unwrap();
        let run = talk.ann.send_message("go").await.run_id;
        talk.ann.wait_for("message.text.delta").await;
        cancels(&mut talk, &run).await;
        let (status, answer) = talk.ask().await;
        assert_eq!((status, answer.finish_reason), (RunStatus::Failed, Some(FinishReason::Budget)));
        assert_eq!(talk.provider.asked().len(), 1, "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn l13_a_cancel_while_a_person_is_asked() {
    let write = r#"{"path":"never.txt","content":"x"}"#;
    let (_app, talks) =
        talks(|dialect| vec![dialect.calls("write", write), dialect.says("next")]).await;
    for mut talk in talks {
        let run = talk.ann.send_message("go").await.run_id;
        let approval = talk.ann.approval().await;
        let answer = cancels(&mut talk, &run).await;
        assert_eq!(calls_of(&answer)[0].state, ToolState::Cancelled, "{:?}", talk.dialect);
        assert!(talk.ann.approve(&approval.tool_call_id).await.is_err());
        let file = talk.ann.person.client.file_get(&talk.ann.project, "never.txt").await;
        assert!(file.is_err());
        // The call has its one result for the model.
        assert_eq!(text_of(&talk.answer().await), "next", "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn l13_a_cancel_while_a_sub_agent_is_at_work() {
    let left = Gates::new();
    let task = r#"{"description":"d","prompt":"p","agent":"general"}"#;
    let (_app, talks) = talks(|dialect| {
        let half = dialect.answer().open_text(&["half"]).reply();
        vec![dialect.calls("task", task), half.until_left(left.of(dialect)), dialect.says("next")]
    })
    .await;
    for mut talk in talks {
        let run = talk.ann.send_message("go").await.run_id;
        talk.ann.wait_for("message.subtask.updated").await;
        while talk.provider.asked().len() < 2 {
            // The child's events are not those of this room; its request shows that it is at work.
            moment().await;
        }
        cancels(&mut talk, &run).await;
        left.of(talk.dialect).reached().await;
        assert_eq!(text_of(&talk.answer().await), "next", "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn l13_a_cancel_while_the_provider_is_waited_for() {
    let (_app, talks) = talks_on(&Dialect::ALL, patient(2), |_| {
        vec![Reply::status(503, "").header("retry-after", "100")]
    })
    .await;
    for mut talk in talks {
        let run = talk.ann.send_message("go").await.run_id;
        let (_, _, delay_ms) = talk.wait().await;
        assert!(delay_ms >= 100_000, "{delay_ms}");
        cancels(&mut talk, &run).await;
        assert_eq!(talk.provider.asked().len(), 1, "{:?}", talk.dialect);
    }
}
