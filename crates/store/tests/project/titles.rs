//! Titles that a model makes.

use iris_protocol::*;
use iris_store::project::*;

use crate::fixture::*;

fn untitled(n: u128) -> CreateSession {
    CreateSession { title: None, ..create_session(n) }
}

fn set(n: u128, title: Option<&str>) -> SetTitle {
    let title = title.map(str::to_owned);
    SetTitle { session_id: SessionId::from_bits(n), title, usage: usage(3), at: NOW + 1 }
}

fn rename(n: u128, title: Option<&str>) -> UpdateSession {
    UpdateSession {
        id: SessionId::from_bits(n),
        title: title.map(str::to_owned),
        agent: None,
        model: None,
        mode: None,
        by: bob(),
        at: NOW,
    }
}

#[tokio::test]
async fn a_model_gives_a_title_once_and_what_that_used_counts() {
    let fixture = Fixture::with_run().await;
    fixture.write(untitled(2)).await.unwrap();
    let wants = async |n| fixture.reader().is_untitled(SessionId::from_bits(n)).await.unwrap();
    assert_eq!((wants(1).await, wants(2).await, wants(9).await), (false, true, false));
    // A failure leaves it to the next run.
    assert!(!fixture.write(set(2, None)).await.unwrap());
    assert!(wants(2).await);
    fixture.take_events();
    assert!(fixture.write(set(2, Some("Notes"))).await.unwrap());
    assert_eq!(fixture.take_events(), ["S session.updated", "P session.updated"]);
    let session = fixture.reader().session(SessionId::from_bits(2)).await.unwrap().unwrap();
    assert_eq!((session.title.as_str(), session.usage.output_tokens), ("Notes", 6));
    assert!(!fixture.write(set(2, Some("Other"))).await.unwrap());
    let session = fixture.reader().session(SessionId::from_bits(2)).await.unwrap().unwrap();
    assert_eq!((session.title.as_str(), session.usage.output_tokens), ("Notes", 9));
}

#[tokio::test]
async fn a_title_of_a_person_stays_also_when_it_is_the_default_one() {
    let fixture = Fixture::with_run().await;
    for (n, title) in [(2, "Mine"), (3, TITLE_DEFAULT)] {
        fixture.write(untitled(n)).await.unwrap();
        fixture.write(rename(n, None)).await.unwrap();
        assert!(fixture.reader().is_untitled(SessionId::from_bits(n)).await.unwrap());
        fixture.write(rename(n, Some(title))).await.unwrap();
        assert!(!fixture.write(set(n, Some("Other"))).await.unwrap());
        let session = fixture.reader().session(SessionId::from_bits(n)).await.unwrap().unwrap();
        assert_eq!(session.title, title);
    }
    let missing = fixture.write(set(9, Some("x"))).await.unwrap_err();
    assert_eq!(missing.code(), ErrorCode::NotFound);
}
