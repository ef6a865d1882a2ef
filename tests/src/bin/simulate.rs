fn main() {
    use svcmap_tests::simulator::*;
    let args: Vec<String> = std::env::args().collect();
    if args[1] == "gates" {
        for gate in gates::all() {
            let start = svcmap_proto::io::Clock.now();
            let (right, wrong) = (gate.run(), gate.run_wrong());
            let took = svcmap_proto::io::Clock.now().since(start).as_secs_f64();
            println!(
                "{:45} {:.5} {:.5} +-{:.5} {} | wrong {:.5} +-{:.5} {} {took:.1}s",
                gate.name,
                gate.expected,
                right.mean,
                right.half_width,
                right.passed,
                wrong.mean,
                wrong.half_width,
                wrong.passed
            );
        }
        return;
    }
    let jobs: u64 = args[1].parse().unwrap();
    let rule = Rule::by_name(&args[2]).unwrap();
    let scenario = Scenario::default().with_rule(rule).with_jobs(jobs);
    let start = svcmap_proto::io::Clock.now();
    let f = World::new(scenario).run();
    let took = svcmap_proto::io::Clock.now().since(start).as_secs_f64();
    println!("{:#?}", f);
    println!(
        "{:.0} jobs/s, {:.0} events/s, {:.1} events/job",
        jobs as f64 / took,
        f.events as f64 / took,
        f.events as f64 / jobs as f64
    );
}
