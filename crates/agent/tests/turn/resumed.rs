//! Runs that were cut off and go on.

use iris_agent::{
    Effect, Input, Progress, Resumption, StepPart, TurnEnd, TurnLimits, UnfinishedCall, Verdict,
};
use iris_protocol::{
    ApiError, ErrorCode, FinishReason, Message, MessageId, MessageRole, MessageState, Part,
    RunStatus, SessionId, ToolPart, ToolState, Usage,
};

use crate::script::{
    Scene, answers, approved, arguments, asks, call_id, call_part, calls, end, end_failed,
    finishes, part_id, record_result, refuses, run, says, show, step_end, text_part,
};

fn waiting(id: u128, tool_name: &str) -> UnfinishedCall {
    UnfinishedCall { id: call_id(id), tool_name: tool_name.to_owned(), input: arguments() }
}

fn after(steps: u32) -> Resumption {
    Resumption { steps, ..Resumption::default() }
}

fn limits(steps_max: u32, unusable_steps_max: u32) -> TurnLimits {
    TurnLimits { steps_max, unusable_steps_max, ..TurnLimits::default() }
}

#[test]
fn run_that_was_cut_off_while_the_model_spoke_asks_it_again_and_counts_on() {
    let mut scene = Scene::resumed(TurnLimits::default(), after(2));

    assert_eq!(scene.step(Input::Started), [Effect::CallModel]);
    assert_eq!(scene.step(says("Done.")), [show(1, 0, "Done.")]);
    let end = TurnEnd {
        parts: vec![text_part(1, "Done.")],
        step: Some(step_end(2, 2, FinishReason::Stop)),
        ..end(RunStatus::Completed, FinishReason::Stop)
    };
    assert_eq!(scene.step(finishes(FinishReason::Stop)), [Effect::End(end)]);
}

#[test]
fn calls_that_wait_are_answered_as_before() {
    let waiting = vec![waiting(100, "write"), waiting(101, "edit")];
    let resumption = Resumption {
        steps: 1,
        unusable_steps: 0,
        waiting,
        running: Vec::new(),
        ..Resumption::default()
    };
    let mut scene = Scene::resumed(TurnLimits::default(), resumption);

    assert_eq!(scene.step(Input::Started), []);
    assert_eq!(scene.step(Input::CallSettled(call_id(101))), []);
    assert_eq!(scene.step(approved(call_id(100))), [run(100, "write")]);
    assert_eq!(scene.step(approved(call_id(100))), []);
    let effects = scene.step(answers(100, "written"));
    assert_eq!(effects, [record_result(100, "written"), Effect::CallModel]);
}

#[test]
fn run_that_waits_can_be_cancelled() {
    let resumption = Resumption {
        steps: 1,
        unusable_steps: 0,
        waiting: vec![waiting(1, "write")],
        running: Vec::new(),
        ..Resumption::default()
    };
    let mut scene = Scene::resumed(TurnLimits::default(), resumption);
    scene.step(Input::Started);

    let end = Effect::End(end(RunStatus::Cancelled, FinishReason::Cancelled));
    assert_eq!(scene.step(Input::CancelRequested), [end]);
    assert_eq!(scene.step(approved(call_id(1))), []);
}

#[test]
fn calls_that_run_are_run_again_and_end_as_before() {
    let (waits, runs) = (vec![waiting(100, "write")], vec![waiting(101, "task")]);
    let resumption = Resumption {
        steps: 1,
        unusable_steps: 0,
        waiting: waits,
        running: runs,
        ..Resumption::default()
    };
    let mut scene = Scene::resumed(TurnLimits::default(), resumption);

    assert_eq!(scene.step(Input::Started), [run(101, "task")]);
    // It runs already.
    assert_eq!(scene.step(approved(call_id(101))), []);
    assert_eq!(scene.step(answers(101, "found")), [record_result(101, "found")]);
    assert_eq!(scene.step(Input::CallSettled(call_id(100))), [Effect::CallModel]);
}

#[test]
fn limit_of_model_calls_counts_those_before_the_cut() {
    let mut scene = Scene::resumed(limits(2, 5), after(2));
    let over = Effect::End(end(RunStatus::Completed, FinishReason::Steps));
    assert_eq!(scene.step(Input::Started), std::slice::from_ref(&over));

    let mut scene = Scene::resumed(limits(2, 5), after(1));
    assert_eq!(scene.step(Input::Started), [Effect::CallModel]);
    scene.step(calls("read", Verdict::Run));
    scene.step(finishes(FinishReason::ToolCalls));
    assert_eq!(scene.step(answers(2, "text")), [record_result(2, "text"), over]);
}

#[test]
fn unusable_calls_before_the_cut_count() {
    let resumption = Resumption {
        steps: 2,
        unusable_steps: 1,
        waiting: Vec::new(),
        running: Vec::new(),
        ..Resumption::default()
    };
    let mut scene = Scene::resumed(limits(50, 2), resumption);
    scene.step(Input::Started);
    scene.step(calls("fly", refuses("unknown tool `fly`")));

    let message = "the model made only unusable tool calls 2 times in a row";
    let error = ApiError::new(ErrorCode::ProviderError, message).reason("tool_args_invalid");
    let parts = vec![call_part(1, "fly", refuses("unknown tool `fly`"))];
    let step = step_end(3, 2, FinishReason::ToolCalls);
    let expected = [Effect::RecordStep { parts, step }, Effect::End(end_failed(error.clone()))];
    assert_eq!(scene.step(finishes(FinishReason::ToolCalls)), expected);

    let resumption = Resumption {
        steps: 2,
        unusable_steps: 2,
        waiting: Vec::new(),
        running: Vec::new(),
        ..Resumption::default()
    };
    let mut scene = Scene::resumed(limits(50, 2), resumption);
    assert_eq!(scene.step(Input::Started), [Effect::End(end_failed(error))]);
}

#[test]
fn resumption_is_read_from_what_is_recorded_of_the_answer() {
    let cut = Part::Text { id: part_id(50), text: "So".to_owned(), interrupted: true };
    let refused = || tool(10, ToolState::Error, None);
    let unknown = || tool(12, ToolState::UnknownOutcome, Some(1));
    let failed = || tool(14, ToolState::Error, Some(1));
    let waiting_call = tool(16, ToolState::Waiting, None);
    let resumption = |parts: &[Part]| Resumption {
        progress: Progress::default(),
        ..Resumption::of(&answer(parts), &TurnLimits::default())
    };

    assert_eq!(resumption(&[]), after(0));
    assert_eq!(resumption(&[unknown(), step(0), cut]), after(1));
    assert_eq!(resumption(&[failed(), step(0), refused(), step(1)]).unusable_steps, 1);
    assert_eq!(resumption(&[refused(), step(0), refused(), step(1)]).unusable_steps, 2);
    let running_call = tool(18, ToolState::Running, Some(1));
    let parts = [refused(), step(0), unknown(), waiting_call, running_call, step(1)];
    let (waiting, running) = (vec![waiting(17, "write")], vec![waiting(19, "write")]);
    assert_eq!(
        resumption(&parts),
        Resumption { steps: 2, unusable_steps: 0, waiting, running, ..Resumption::default() }
    );
}

#[test]
fn a_loop_that_began_before_the_cut_is_found_after_it() {
    let done = |part, output: &str| {
        let Part::Tool(call) = tool(part, ToolState::Completed, Some(1)) else { unreachable!() };
        Part::Tool(ToolPart { output: Some(output.to_owned()), ..call })
    };
    let limits = TurnLimits::default();
    let go_on = |last: &str| {
        let parts = [done(10, "1"), step(0), done(12, "1"), step(1), done(14, last), step(2)];
        let mut scene = Scene::resumed(limits, Resumption::of(&answer(&parts), &limits));
        scene.step(Input::Started)
    };
    assert_eq!(go_on("2"), [Effect::CallModel]);
    let [Effect::End(end)] = &go_on("1")[..] else { panic!("it goes on") };
    assert_eq!(end.error.as_ref().unwrap().details["reason"], "loop");

    // One of its calls has its result only now.
    let running = tool(14, ToolState::Running, Some(1));
    let parts = [done(10, "1"), step(0), done(12, "1"), step(1), running, step(2)];
    for (output, goes_on) in [("1", false), ("2", true)] {
        let mut scene = Scene::resumed(limits, Resumption::of(&answer(&parts), &limits));
        scene.step(Input::Started);
        let effects = scene.step(answers(15, output));
        assert_eq!(effects.last() == Some(&Effect::CallModel), goes_on, "{effects:?}");
    }
}

fn answer(parts: &[Part]) -> Message {
    Message {
        id: MessageId::from_bits(1),
        session_id: SessionId::from_bits(1),
        run_id: None,
        after_step: None,
        role: MessageRole::Assistant,
        agent: None,
        model: None,
        parts: parts.to_vec(),
        state: MessageState::Interrupted,
        finish_reason: None,
        error: None,
        usage: None,
        created_by: None,
        created_at: 0,
        completed_at: None,
    }
}

/// A call as the store has it; its own id is the number after its part's.
fn tool(part: u128, state: ToolState, started_at: Option<i64>) -> Part {
    let StepPart::Call { part, .. } = call_part(part, "write", asks()) else { unreachable!() };
    Part::Tool(ToolPart { state, started_at, ..part })
}

fn step(index: u32) -> Part {
    Part::Step {
        id: part_id(100 + u128::from(index)),
        index,
        usage: Usage::default(),
        price_version: None,
        answered_by: None,
        finish_reason: FinishReason::ToolCalls,
        raw_finish_reason: None,
    }
}
