// OpenAI's SDK for Node. Arguments: base URL, turn, what the turn before printed.
import OpenAI from "openai";

const [url, turn, before] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const greedy = { model: "any", temperature: 0, max_output_tokens: 32 };

if (turn === "first") {
    const response = await client.responses.create({ input: "My name is Nora. I live in Oslo.", ...greedy });
    const conversation = await client.conversations.create({});
    await client.responses.create({ input: "My name is Boris.", conversation: conversation.id, ...greedy });
    console.log(JSON.stringify([response.id, conversation.id]));
} else {
    const [responseId, conversationId] = JSON.parse(before);
    const stream = await client.responses.create({
        input: "What is my name?", previous_response_id: responseId, stream: true, ...greedy,
    });
    let named = "";
    for await (const event of stream) {
        if (event.type === "response.output_text.delta") {
            named += event.delta;
        }
    }
    const answer = await client.responses.create({ input: "What is my name?", conversation: conversationId, ...greedy });
    console.log(JSON.stringify([named, answer.output_text]));
}
