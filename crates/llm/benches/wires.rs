use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::StreamExt;
use iris_llm::{ProviderKind, replay};

fn chat() -> String {
    let mut s = String::new();
    for n in 0..8000 {
        s.push_str(&format!("data: {{\"id\":\"chatcmpl-ARqp8d5eXyq\",\"object\":\"chat.completion.chunk\",\"created\":1732807814,\"model\":\"gpt-4o-2024-08-06\",\"system_fingerprint\":\"fp_7f6be3efb0\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{n}\"}},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"));
    }
    s.push_str(
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    );
    s
}
fn bench(c: &mut Criterion) {
    let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let body = Bytes::from(chat());
    let mut g = c.benchmark_group("wires");
    g.throughput(Throughput::Bytes(body.len() as u64));
    g.sample_size(10);
    g.bench_function("chat", |b| {
        b.iter(|| {
            let pieces = (0..body.len())
                .step_by(16384)
                .map(|a| body.slice(a..(a + 16384).min(body.len())))
                .collect();
            rt.block_on(replay(ProviderKind::OpenAiCompatible, pieces).unwrap().count())
        })
    });
    g.finish();
}
criterion_group!(benches, bench);
criterion_main!(benches);
