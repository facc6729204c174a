"""Topics for what publishes, and what is in them then."""

import time
import uuid

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streamer.settings.sections import Config, TopicSettings

PARTITIONS = 3
NO_LEADER = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


def with_topics(kafka: str) -> Config:
    """Settings with new topics, of PARTITIONS partitions for clicks and one for items."""
    name = f"publish-{uuid.uuid4().hex[:8]}"
    topics = TopicSettings(clicks=f"{name}-clicks", items=f"{name}-items")
    admin = AdminClient({"bootstrap.servers": kafka})
    futures = admin.create_topics(
        [
            NewTopic(topics.clicks, PARTITIONS, 1, config={"max.message.bytes": "20000"}),
            NewTopic(topics.items, 1, 1, config={"cleanup.policy": "compact"}),
        ]
    )
    for future in futures.values():
        future.result()
    while not {topics.clicks, topics.items} <= admin.list_topics(timeout=10).topics.keys():
        time.sleep(0.05)
    return Config(kafka={"bootstrap.servers": kafka}, topics=topics)


def end_of(consumer: Consumer, where: TopicPartition) -> int:
    """The end of a partition, whose leader may be elected a moment after the topic is listed."""
    for _ in range(50):
        try:
            return int(consumer.get_watermark_offsets(where, timeout=10)[1])
        except KafkaException as error:
            if error.args[0].code() not in NO_LEADER:
                raise
            time.sleep(0.1)
    raise AssertionError(f"{where} has no leader")


def read(config: Config, topic: str, partitions: int) -> list[Message]:
    """All records of a topic, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": config.kafka["bootstrap.servers"],
            "group.id": "reader",
            "enable.auto.commit": False,
        }
    )
    messages: list[Message] = []
    try:
        for partition in range(partitions):
            where = TopicPartition(topic, partition, 0)
            end = end_of(consumer, where)
            consumer.assign([where])
            count = 0
            while count < end:
                batch = consumer.consume(end - count, timeout=10)
                assert batch, f"{topic} {partition}: {count} of {end} records"
                assert not any(message.error() for message in batch)
                messages += batch
                count += len(batch)
    finally:
        consumer.close()
    return messages
